import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { PassThrough } from 'node:stream'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { QmpCommandError } from './errors.js'
import { connectQmp, QmpClient, type QmpEvent } from './qmp.js'

interface Command {
  execute: string
  arguments?: Record<string, unknown>
  id: number
}
type Handler = (command: Command, send: (message: unknown) => void, socket: Socket) => void

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}\r\n'

let dir: string
let cleanup: (() => void)[]
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'qmp-'))
  cleanup = []
})
afterEach(async () => {
  vi.restoreAllMocks()
  for (const close of cleanup) close()
  await rm(dir, { recursive: true })
})

/** A QMP server: greets, enables capabilities, and leaves every other command to `handle`. */
async function serve(handle: Handler, greeting = GREETING): Promise<string> {
  const path = join(dir, 'qmp.sock')
  const server = createServer((socket) => {
    cleanup.push(() => socket.destroy())
    socket.on('error', () => {}).write(greeting)
    const send = (message: unknown) => void socket.write(`${JSON.stringify(message)}\r\n`)
    createInterface({ input: socket }).on('line', (line) => {
      const command: Command = JSON.parse(line)
      if (command.execute === 'qmp_capabilities') send({ return: {}, id: command.id })
      else handle(command, send, socket)
    })
  })
  cleanup.push(() => server.close())
  await once(server.listen(path), 'listening')
  return path
}
const event = (name: string, data?: object) => ({
  event: name,
  ...(data && { data }),
  timestamp: { seconds: 1, microseconds: 2 },
})

describe('QmpClient', () => {
  it.each([
    ['ENOENT', 'there is no socket (ENOENT). Check that QEMU runs with -qmp unix:'],
    ['ECONNREFUSED', 'there is no listener (ECONNREFUSED). Check that QEMU still runs.'],
  ])('says what %s of a connect means', async (code, why) => {
    const path = join(dir, 'old.sock')
    if (code === 'ECONNREFUSED') {
      const program = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
      await once(spawn(process.execPath, ['-e', program]), 'exit')
    }
    const expected = { code: 'QMP_CLOSED', op: 'qmp connect', subject: path, retryable: true, cause: { code } }
    await expect(connectQmp(path)).rejects.toMatchObject({ ...expected, message: expect.stringContaining(why) })
  })

  it.runIf(process.platform === 'linux')('connects to a path that QEMU itself could not have named', async () => {
    const short = await serve(() => {})
    const deep = join(dir, 'd'.repeat(200))
    await mkdir(deep)
    await rename(short, join(deep, 'qmp.sock'))
    const qmp = await connectQmp(join(deep, 'qmp.sock'))
    cleanup.push(() => qmp.close())
    expect(qmp.version.major).toBe(7)
    const missing = join(deep, 'missing')
    await expect(connectQmp(missing)).rejects.toMatchObject({ code: 'QMP_CLOSED', subject: missing, cause: { code: 'ENOENT' } })
  })

  it.each([Number.NaN, '5' as never])('refuses a deadline of %s', async (timeoutMs) => {
    const path = await serve(() => {})
    await expect(connectQmp(path, { timeoutMs })).rejects.toThrow(/^timeoutMs: /)
    const qmp = await connectQmp(path)
    cleanup.push(() => qmp.close())
    await expect(qmp.execute('stop', undefined, { timeoutMs })).rejects.toThrow(/^timeoutMs: /)
    await expect(qmp.nextEvent('STOP', { timeoutMs })).rejects.toThrow(/^timeoutMs: /)
  })

  it('does not number its commands as the client before it did, whose answers may still come', async () => {
    const ids: number[][] = []
    const path = await serve(({ id }, send) => {
      ids.at(-1)!.push(id)
      send({ return: {}, id })
    })
    for (let client = 0; client < 2; client++) {
      ids.push([])
      const qmp = await connectQmp(path)
      for (let i = 0; i < 3; i++) await qmp.execute('stop')
      qmp.close()
    }
    expect(ids[0]!.filter((id) => ids[1]!.includes(id))).toEqual([])
    expect(new Set(ids.flat()).size).toBe(6)
  })

  it('greets, and runs commands with and without arguments', async () => {
    const seen: Command[] = []
    const qmp = await connectQmp(
      await serve((command, send) => {
        seen.push(command)
        send({ return: { running: true }, id: command.id })
      }),
    )
    expect(qmp.version).toMatchObject({ major: 7, minor: 2 })
    expect(await qmp.execute('query-status')).toEqual({ running: true })
    await qmp.execute('device_add', { driver: 'virtio-blk-pci', id: 'd0' })
    expect(seen.map(({ id: _, ...rest }) => rest)).toEqual([
      { execute: 'query-status' },
      { execute: 'device_add', arguments: { driver: 'virtio-blk-pci', id: 'd0' } },
    ])
    qmp.close()
  })

  it('tells answers apart by id, in any order and any pieces', async () => {
    const held: Command[] = []
    const qmp = await connectQmp(
      await serve((command, _, socket) => {
        held.push(command)
        if (held.length < 3) return
        const text = held.reverse().map(({ execute, id }) => `${JSON.stringify({ return: execute, id })}\r\n`)
        socket.write(text.join('').slice(0, 20))
        setImmediate(() => socket.write(text.join('').slice(20)))
      }),
    )
    expect(await Promise.all(['a', 'b', 'c'].map((name) => qmp.execute(name)))).toEqual(['a', 'b', 'c'])
    qmp.close()
  })

  it("rejects with QEMU's error, and goes on", async () => {
    const path = await serve(({ execute, id }, send) => {
      send(execute === 'bad' ? { error: { class: 'DeviceNotFound', desc: "Device 'x' not found" }, id } : { return: 1, id })
    })
    const qmp = await connectQmp(path)
    const error = await qmp.execute('bad').catch((error) => error)
    expect(error).toBeInstanceOf(QmpCommandError)
    expect(error).toMatchObject({
      code: 'QMP_COMMAND',
      command: 'bad',
      errorClass: 'DeviceNotFound',
      message: expect.stringMatching(/Device 'x' not found/),
    })
    expect(await qmp.execute('good')).toBe(1)
    qmp.close()
  })

  it('gives up on a command at its deadline or on abort, and ignores a late answer', async () => {
    const clock = new ManualClock()
    const late: (() => void)[] = []
    const path = await serve(({ execute, id }, send) => {
      if (execute === 'slow') late.push(() => send({ return: 'late', id }))
      else {
        for (const answer of late) answer()
        send({ return: 'now', id })
      }
    })
    const qmp = await connectQmp(path, { clock })
    const slow = qmp.execute('slow', undefined, { timeoutMs: 100 })
    clock.advance(100)
    await expect(slow).rejects.toMatchObject({
      code: 'DEADLINE',
      message: 'qmp slow: there is no answer within 100 ms. QEMU may still carry it out.',
    })
    const abort = new AbortController()
    const aborted = qmp.execute('slow', undefined, { signal: abort.signal })
    abort.abort(new Error('no more'))
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED', cause: { message: 'no more' } })
    expect(await qmp.execute('quick')).toBe('now')
    expect(clock.pending).toBe(0)
    qmp.close()
  })

  it('hands out events: to listeners, to iterations, to waits', async () => {
    const path = await serve(({ id }, send) => {
      send(event('STOP'))
      send(event('DEVICE_DELETED', { device: 'a' }))
      send(event('DEVICE_DELETED', { device: 'b' }))
      send({ return: {}, id })
    })
    const qmp = await connectQmp(path)
    const heard: QmpEvent[] = []
    qmp.on('event', (each) => heard.push(each))
    const iterated = collect(qmp.events('DEVICE_DELETED'))
    const waited = qmp.nextEvent('DEVICE_DELETED', { timeoutMs: 5000, accepts: ({ data }) => data.device === 'b' })
    await qmp.execute('go')
    expect((await waited).data).toEqual({ device: 'b' })
    expect(heard.map((each) => each.event)).toEqual(['STOP', 'DEVICE_DELETED', 'DEVICE_DELETED'])
    expect(heard[0]!.data).toEqual({})
    qmp.close()
    expect((await iterated).map(({ data }) => data.device)).toEqual(['a', 'b'])
    expect([qmp.listenerCount('event'), qmp.listenerCount('close')]).toEqual([1, 0])
  })

  it('bounds a wait for an event, and ends an iteration on abort', async () => {
    const clock = new ManualClock()
    const qmp = await connectQmp(await serve(() => {}), { clock })
    const wait = qmp.nextEvent('NEVER', { timeoutMs: 50 })
    clock.advance(50)
    await expect(wait).rejects.toMatchObject({
      code: 'DEADLINE',
      message: 'qmp event NEVER: there is no such event within 50 ms',
    })
    const abort = new AbortController()
    const iterated = collect(qmp.events(undefined, { signal: abort.signal }))
    abort.abort('stop')
    await expect(iterated).rejects.toMatchObject({ code: 'ABORTED', cause: 'stop' })
    qmp.close()
  })

  it('rejects what is under way and what comes later when QEMU goes away', async () => {
    const qmp = await connectQmp(await serve((_command, _send, socket) => void socket.end()))
    const closed = once(qmp, 'close')
    const wait = qmp.nextEvent('SHUTDOWN', { timeoutMs: 5000 })
    await expect(qmp.execute('quit')).rejects.toMatchObject({
      code: 'QMP_CLOSED',
      message: 'qmp quit: QEMU closed the connection',
    })
    await expect(wait).rejects.toMatchObject({ code: 'QMP_CLOSED' })
    await closed
    await expect(qmp.execute('again')).rejects.toMatchObject({ code: 'QMP_CLOSED' })
    expect(await collect(qmp.events())).toEqual([])
  })

  it.each([
    ['is not JSON', 'hello\r\n', /something other than QMP: hello/],
    ['is not an object', '7\r\n', /something other than QMP: 7/],
    [
      'answers nothing',
      '{"error": {"class": "GenericError", "desc": "JSON parse error"}}\r\n',
      /without an id: JSON parse error/,
    ],
  ])('closes on a line that %s', async (_, line, message) => {
    const qmp = await connectQmp(await serve((_command, _send, socket) => void socket.write(line)))
    await expect(qmp.execute('x')).rejects.toMatchObject({ code: 'QMP_CLOSED', message: expect.stringMatching(message) })
  })

  it.each(['null', '{}', '{"version": {"qemu": null}}', '7'].map((text) => `{"QMP": ${text}}\r\n`))(
    'closes on a greeting like %j',
    async (greeting) => {
      await expect(connectQmp(await serve(() => {}, greeting))).rejects.toMatchObject({
        code: 'QMP_CLOSED',
        message: expect.stringMatching(/greeting/),
      })
    },
  )

  it('closes on a line without an end', async () => {
    const qmp = await connectQmp(await serve((_command, _send, socket) => void socket.write('x'.repeat((16 << 20) + 1))))
    await expect(qmp.execute('x')).rejects.toMatchObject({ code: 'QMP_CLOSED', message: /more than 16777216 characters/ })
  })

  it('closes on a line that is too long, although it ends', async () => {
    const line = `{"id": 1, "return": "${'x'.repeat(16 << 20)}"}\n`
    const qmp = await connectQmp(await serve((_command, _send, socket) => void socket.write(line)))
    await expect(qmp.execute('x')).rejects.toMatchObject({ code: 'QMP_CLOSED', message: /more than 16777216 characters/ })
  })

  it('reads a line once, in pieces however small', async () => {
    // What the client writes goes no further; what it reads is emitted here.
    let id: number | undefined
    const transform = (chunk: Buffer, _encoding: string, done: () => void) => {
      id = JSON.parse(chunk.toString()).id
      done()
    }
    const stream = new PassThrough({ transform })
    const connecting = QmpClient.over(stream)
    stream.emit('data', Buffer.from(GREETING))
    await Promise.resolve()
    stream.emit('data', Buffer.from(`{"return": {}, "id": ${id}}\n`))
    const qmp = await connecting
    const asked = qmp.execute('x')
    let searched = 0
    const original = String.prototype.indexOf
    vi.spyOn(String.prototype, 'indexOf').mockImplementation(function (this: string, ...args: [string, number?]) {
      searched += this.length - (args[1] ?? 0)
      return original.apply(this, args)
    })
    const answer = `{"id": ${id}, "return": "${'x'.repeat(10_000)}"}\n`
    for (const character of answer) stream.emit('data', Buffer.from(character))
    expect(searched).toBe(answer.length)
    vi.restoreAllMocks()
    expect(await asked).toBe('x'.repeat(10_000))
    qmp.close()
  })

  it('bounds the greeting, and tells when there is no listener', async () => {
    const clock = new ManualClock()
    const path = await serve(() => {}, ' ')
    const armed = [clock.armed(30), clock.armed(30)]
    const silent = connectQmp(path, { clock, timeoutMs: 30 })
    await Promise.all(armed)
    clock.advance(30)
    await expect(silent).rejects.toMatchObject({
      code: 'DEADLINE',
      message:
        'qmp: there is no greeting within 30 ms. A monitor serves one client at a time: check that no other one is connected.',
    })
    await expect(connectQmp(join(dir, 'nobody'))).rejects.toMatchObject({ code: 'QMP_CLOSED', cause: { code: 'ENOENT' } })
  })

  it.each([
    ['a greeting', `{"QMP":${'['.repeat(30_000)}${']'.repeat(30_000)}}`, 'a greeting without a version: {"QMP":[['],
    ['nothing known', `${'['.repeat(30_000)}${']'.repeat(30_000)}`, 'an answer without an id: [['],
  ])('ends with %s that is deeper than a stack', async (_what, line, message) => {
    const path = await serve(() => {}, `${line}\n`)
    await expect(connectQmp(path)).rejects.toMatchObject({ code: 'QMP_CLOSED', message: expect.stringContaining(message) })
  })

  it('rejects what an event is looked at with', async () => {
    const path = await serve((_command, send) => send(event('A')))
    const qmp = await connectQmp(path)
    cleanup.push(() => qmp.close())
    const accepts = () => {
      throw new TypeError('broken')
    }
    const next = qmp.nextEvent('A', { timeoutMs: 10_000, accepts })
    qmp.execute('x').catch(() => {})
    await expect(next).rejects.toThrow('broken')
  })

  it('goes on when a listener throws, which is uncaught', async () => {
    using uncaught = catchUncaught()
    const qmp = await connectQmp(
      await serve(({ id }, _send, socket) => {
        const lines = [event('A'), event('B'), { return: 7, id }].map((message) => `${JSON.stringify(message)}\r\n`)
        // All in one chunk.
        socket.write(lines.join(''))
      }),
    )
    const broken = new Error('broken')
    const heard: string[] = []
    qmp.on('event', (each) => {
      heard.push(each.event)
      throw broken
    })
    const next = qmp.nextEvent('B', { timeoutMs: 10_000 })
    expect(await qmp.execute('x')).toBe(7)
    expect([(await next).event, heard]).toEqual(['B', ['A', 'B']])
    expect([await uncaught.next(), await uncaught.next()]).toEqual([broken, broken])
    qmp.on('close', () => {
      throw broken
    })
    qmp.close()
    expect(await uncaught.next()).toBe(broken)
  })

  it.each<[string, () => Promise<unknown>, string]>([
    ['no options', () => connectQmp('/x', null as never), 'options: must be an object, got null'],
    ['a path that is not a string', () => connectQmp(5 as never), 'path: must be the path of a socket, got 5'],
    ['no path', () => connectQmp(''), 'path: must be the path of a socket, got ""'],
    [
      'a signal that is not a signal',
      () => connectQmp('/x', { signal: {} as AbortSignal }),
      'signal: must be an AbortSignal, got an object',
    ],
    [
      'a clock that is not a clock',
      () => connectQmp('/x', { clock: {} as never }),
      'clock.now: must be a function, got undefined',
    ],
    ['no stream', () => QmpClient.over(undefined as never), 'stream: must be a Duplex stream, got undefined'],
    ['a stream that is not a stream', () => QmpClient.over({} as never), 'stream: must be a Duplex stream, got an object'],
    ['no options over a stream', () => QmpClient.over(new PassThrough(), null as never), 'options: must be an object, got null'],
    [
      'a signal over a stream',
      () => QmpClient.over(new PassThrough(), { signal: {} as AbortSignal }),
      'signal: must be an AbortSignal, got an object',
    ],
    [
      'a time over a stream',
      () => QmpClient.over(new PassThrough(), { timeoutMs: '5' as never }),
      'timeoutMs: must be a number of milliseconds, got "5"',
    ],
  ])('refuses %s', async (_what, ask, message) => {
    await expect(ask()).rejects.toThrow(message)
  })
})

async function collect<T>(events: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const each of events) all.push(each)
  return all
}
