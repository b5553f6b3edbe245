import { getEventListeners } from 'node:events'
import { linkSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '@upcall/foundation/clock'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connect } from './connect.js'
import { connectError, isVsockError, type VsockError } from './errors.js'
import type { ConnectOptions } from './plan.js'
import { VsockSocket } from './socket.js'

let dir: string
let path: string
let closing: (() => Promise<unknown> | undefined)[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  path = join(dir, 'vm.sock')
})
afterEach(async () => {
  for (const close of closing.reverse()) await close()
  closing = []
  rmSync(dir, { recursive: true, force: true })
})

/** A Unix server whose every connection is `serve`'s to answer. */
async function vmm(serve: (socket: Socket) => void, at = path): Promise<Server> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket.on('error', () => {}))
    serve(socket)
  })
  await new Promise<void>((resolve) => server.listen(at, resolve))
  closing.push(() => {
    for (const socket of sockets) socket.destroy()
    return new Promise((resolve) => server.close(resolve))
  })
  return server
}

/** Collects exactly one line, then calls back. */
function onCommand(socket: Socket, then: (line: string) => void): void {
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
    if (text.endsWith('\n')) then(text)
  })
}

async function dial(options: ConnectOptions = {}): Promise<VsockSocket> {
  const socket = await connect({ transport: 'hvsock', path, port: 219 }, options)
  closing.push(() => void socket.destroy())
  return socket
}

async function failure(promise: Promise<unknown>): Promise<VsockError> {
  const error = await promise.then(
    () => new Error('it succeeded'),
    (e: unknown) => e,
  )
  if (!isVsockError(error)) throw error
  return error
}

async function readExactly(socket: Socket, length: number): Promise<string> {
  let text = ''
  while (text.length < length) {
    const chunk: Buffer | null = socket.read()
    if (chunk) text += chunk.toString('latin1')
    else await new Promise((resolve) => socket.once('readable', resolve))
  }
  return text
}

/** Time that passes only when a timer waits for it: each timer fires in the next turn, in order of its due time. */
function eagerClock(): Clock & { waits: number[] } {
  let now = 0
  const waits: number[] = []
  return {
    waits,
    now: () => now,
    setTimer(ms, fn) {
      waits.push(ms)
      let live = true
      // Long waits are deadlines, which these tests never let pass; short ones are delays between attempts.
      if (ms > 100) return () => {}
      setImmediate(() => {
        if (!live) return
        now += ms
        fn()
      })
      return () => {
        live = false
      }
    },
  }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

describe('the handshake', () => {
  it('writes one uppercase command and nothing more before the reply', async () => {
    const chunks: string[] = []
    await vmm((socket) =>
      socket.on('data', (chunk) => {
        chunks.push(chunk.toString('latin1'))
        // Time for a dialer that would say more.
        setImmediate(() => setImmediate(() => socket.write('OK 1073741824\n')))
      }),
    )
    const socket = await dial()
    expect(chunks).toEqual(['CONNECT 219\n'])
    expect(socket).toBeInstanceOf(Socket)
    expect(socket).toBeInstanceOf(VsockSocket)
    expect(socket.allowHalfOpen).toBe(false)
    expect(socket.remote).toEqual({ transport: 'hvsock', path, port: 219 })
    expect(socket.halfClose).toBe(false)
  })

  const whole = 'OK 1073741824\nhello from the guest\nOK 2\n'
  const greeting = whole.slice(whole.indexOf('\n') + 1)

  it('reads the reply at every split, and hands on every byte after it', async () => {
    let split = 0
    await vmm((socket) =>
      onCommand(socket, () => {
        socket.write(whole.slice(0, split))
        // A later turn of the loop makes a chunk of its own.
        setImmediate(() => setImmediate(() => socket.write(whole.slice(split))))
      }),
    )
    for (split = 1; split < whole.length; split++) {
      const socket = await dial()
      expect(await readExactly(socket, greeting.length)).toBe(greeting)
      socket.destroy()
    }
  })

  it('hands on what comes after the reply, however much comes at once', async () => {
    const length = 1 << 20
    await vmm((socket) => onCommand(socket, () => socket.write(`OK 1\n${'x'.repeat(length)}`)))
    expect(await readExactly(await dial(), length)).toBe('x'.repeat(length))
  })

  it('reads the reply byte by byte', async () => {
    await vmm((socket) =>
      onCommand(socket, () => {
        let n = 0
        const next = () => {
          socket.write(whole.slice(n, ++n))
          if (n < whole.length) setImmediate(next)
        }
        next()
      }),
    )
    expect(await readExactly(await dial(), greeting.length)).toBe(greeting)
  })

  it('hands on a greeting that is followed by EOF at once', async () => {
    await vmm((socket) => onCommand(socket, () => socket.end(whole)))
    for (const read of [
      async (socket: VsockSocket) => {
        let text = ''
        for await (const chunk of socket) text += chunk
        return text
      },
      (socket: VsockSocket) =>
        new Promise<string>((resolve) => {
          let text = ''
          socket.on('data', (chunk) => (text += chunk)).on('end', () => resolve(text))
        }),
    ]) {
      expect(await read(await dial())).toBe(greeting)
    }
  })

  it('gives a listener for data that comes later its data', async () => {
    const { promise: ready, resolve: go } = withResolvers<Socket>()
    await vmm((socket) =>
      onCommand(socket, () => {
        socket.write('OK 1\n')
        go(socket)
      }),
    )
    const socket = await dial()
    const guest = await ready
    const text = new Promise((resolve) => socket.on('data', (chunk) => resolve(chunk.toString())))
    guest.write('later')
    expect(await text).toBe('later')
  })

  it.each(['NO\n', 'HTTP/1.1 400 Bad Request\r\n', 'ok 1\n', 'OK x\n', `OK ${'1'.repeat(40)}`, 'OK 1\r\n', 'Z'])(
    'refuses %j for good',
    async (reply) => {
      await vmm((socket) => onCommand(socket, () => socket.write(reply)))
      const error = await failure(dial({ retry: true }))
      expect(error).toMatchObject({ code: 'EPROTO', op: 'connect', retryable: false })
      expect(error.message).toMatch(/^connect hvsock:\/\/.*vm\.sock:219: the reply to CONNECT is ".*", not "OK <n>"\. Check /)
    },
  )

  it('takes EOF at every byte of the reply for a refusal', async () => {
    let n = 0
    await vmm((socket) => onCommand(socket, () => socket.end('OK 1073741824\n'.slice(0, n))))
    for (n = 0; n < 14; n++) {
      const error = await failure(dial())
      expect(error).toMatchObject({ code: 'ECONNREFUSED', retryable: true, remote: { transport: 'hvsock', path, port: 219 } })
      expect(error.message).toMatch(/there is no listener on port 219 in the guest: .*\. Start the server in the guest/)
    }
  })

  it('takes a reset for a refusal, with the errno as cause', async () => {
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      // By then the command is here; closing with it unread resets the connection.
      let turns = 0
      const next = () => (++turns < 5 ? setImmediate(next) : socket.destroy())
      next()
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    closing.push(() => new Promise((resolve) => server.close(resolve)))
    expect(await failure(dial())).toMatchObject({ code: 'ECONNREFUSED', retryable: true, cause: { code: 'ECONNRESET' } })
  })

  it('meets its deadline if the guest stays silent', async () => {
    await vmm(() => {})
    const error = await failure(dial({ timeoutMs: 20 }))
    expect(error).toMatchObject({ code: 'ETIMEDOUT', retryable: true })
    expect(error.message).toMatch(/no answer within \d+ ms\. Check /)
  })
})

// The tests have no addon, so that nothing is connected here even if the check is missing.
it.each(['vsock://any:5000', 'vsock://3:any'])('%s is refused: any is for servers', async (address) => {
  await expect(connect(address)).rejects.toThrow(
    new RangeError(`address: must be one CID and one port, not any, got "${address}"`),
  )
})

it('asks no clock for a time that setTimeout does not keep', async () => {
  await vmm((socket) => socket.resume().once('data', () => socket.write('OK 1\n')))
  const asked: number[] = []
  const clock: Clock = {
    now: () => performance.now(),
    setTimer(ms, fn) {
      asked.push(ms)
      const timer = setTimeout(fn, ms)
      return () => clearTimeout(timer)
    },
  }
  const forEver = Number.POSITIVE_INFINITY
  const socket = await connect(`hvsock://${path}:1`, { timeoutMs: forEver, lingerMs: forEver, clock })
  socket.end()
  await new Promise(setImmediate)
  expect(socket.destroyed).toBe(false)
  socket.destroy()
  await connect(`hvsock://${path}:1`, { timeoutMs: 1e12, clock }).then((socket) => socket.destroy())
  expect(asked.filter((ms) => ms > 0x7fff_ffff)).toEqual([])
})

describe('other failures', () => {
  it('says ECONNREFUSED where there is no file, and keeps ENOENT as cause', async () => {
    const error = await failure(dial())
    expect(error).toMatchObject({ code: 'ECONNREFUSED', retryable: true, cause: { code: 'ENOENT' } })
  })

  it('says ECONNREFUSED where the socket has no listener any more', async () => {
    const server = await vmm(() => {}, `${path}.0`)
    linkSync(`${path}.0`, path)
    await new Promise((resolve) => server.close(resolve))
    expect(await failure(connect(`unix:${path}`))).toMatchObject({
      code: 'ECONNREFUSED',
      retryable: true,
      remote: { transport: 'unix', path },
      cause: { code: 'ECONNREFUSED' },
    })
  })

  it('says ENOTSOCK for a file that is not a socket, final', async () => {
    writeFileSync(path, '')
    mkdirSync(`${path}.d`)
    for (const [address, kind] of [
      [`unix:${path}`, 'a plain file'],
      [`hvsock://${path}:219`, 'a plain file'],
      [`unix:${path}.d`, 'a directory'],
    ] as const) {
      const error = await failure(connect(address, { retry: true }))
      expect(error).toMatchObject({ code: 'ENOTSOCK', retryable: false, cause: { code: 'ECONNREFUSED' } })
      expect(error.message).toContain(`the path is ${kind}, not a socket. Check the path`)
    }
  })

  it('keeps other errnos, final', async () => {
    writeFileSync(path, '')
    const error = await failure(connect(`unix:${path}/x`, { retry: true }))
    expect(error).toMatchObject({ code: 'ENOTDIR', retryable: false, cause: { code: 'ENOTDIR' } })
  })

  it('rejects bad arguments, without connecting', async () => {
    await expect(connect('unix:')).rejects.toMatchObject({ code: 'ERR_INVALID_ADDRESS' })
    await expect(connect('unix:/x', { timeoutMs: 0 })).rejects.toThrow(
      'timeoutMs: must be a number of milliseconds above 0, got 0',
    )
    await expect(connect('unix:/x', { retry: { budgetMs: -1 } })).rejects.toThrow(RangeError)
    // A delay between Infinity and Infinity would not be a number.
    const minDelayMs = Number.POSITIVE_INFINITY
    await expect(connect('unix:/x', { timeoutMs: 1_000, retry: { minDelayMs } })).rejects.toThrow('retry.minDelayMs')
    await expect(connect('unix:/x', { clock: {} as Clock })).rejects.toThrow(TypeError)
    await expect(connect('unix:/x', { lingerMs: Number.NaN })).rejects.toThrow(/lingerMs/)
    await expect(connect('unix:/x', { retry: { minDelayMs: 5, maxDelayMs: 4 } })).rejects.toThrow(
      /retry.maxDelayMs: must be at least retry.minDelayMs \(5\), got 4/,
    )
    for (const wrong of [5, 0, '5s', null, [5]])
      await expect(connect('unix:/x', { retry: wrong as unknown as boolean })).rejects.toThrow(
        expect.objectContaining({
          name: 'TypeError',
          message: expect.stringMatching(/^retry: must be true, false or an object, got /),
        }),
      )
  })
})

describe('retry', () => {
  const retry = { random: () => 0.5 }

  it('makes one attempt unless asked for more', async () => {
    let attempts = 0
    await vmm((socket) => {
      attempts++
      socket.destroy()
    })
    await failure(dial())
    expect(attempts).toBe(1)
  })

  it('goes on after a missing file, a refusal, EOF and a silent guest until there is an answer', async () => {
    let attempts = 0
    const clock = eagerClock()
    const answers = [
      (socket: Socket) => socket.destroy(),
      (socket: Socket) => onCommand(socket, () => socket.end('OK')),
      (socket: Socket) => onCommand(socket, () => socket.write('OK 1\n')),
    ]
    const waiting: Clock = {
      now: clock.now,
      setTimer: (ms, fn) => {
        // The server appears while the dialer waits for its second attempt.
        if (ms <= 100 && ++attempts === 2) {
          let cancel = () => {}
          void vmm((socket) => answers.shift()?.(socket)).then(() => {
            cancel = clock.setTimer(ms, fn)
          })
          return () => cancel()
        }
        return clock.setTimer(ms, fn)
      },
    }
    const socket = await dial({ retry, clock: waiting })
    expect(socket.remote).toMatchObject({ port: 219 })
    expect(answers).toEqual([])
    // Half of the way from 10 ms to 20, 40, 80, 160 ms.
    expect(clock.waits.filter((ms) => ms <= 100)).toEqual([15, 25, 45, 85])
  })

  it('gives each attempt its own deadline', async () => {
    const attemptTimeoutMs = 4_000
    let attempts = 0
    let endAttempt = () => {}
    const clock: Clock = {
      now: () => 0,
      setTimer(ms, fn) {
        if (ms === attemptTimeoutMs) endAttempt = fn
        else if (ms === 1) setImmediate(fn)
        return () => {}
      },
    }
    await vmm((socket) => {
      // The first one is silent until its time is up.
      if (++attempts === 2) onCommand(socket, () => socket.write('OK 1\n'))
      else onCommand(socket, () => endAttempt())
    })
    await dial({ retry: { attemptTimeoutMs, minDelayMs: 1, maxDelayMs: 1 }, clock })
    expect(attempts).toBe(2)
  })

  it('gives up when its budget is spent, with the last error as cause', async () => {
    const clock = eagerClock()
    const error = await failure(dial({ retry: { ...retry, maxDelayMs: 40, budgetMs: 200 }, clock }))
    expect(error).toMatchObject({ code: 'ETIMEDOUT', retryable: true, cause: { code: 'ECONNREFUSED' } })
    expect(error.what).toMatch(/^gave up after \d+ attempts in \d+ ms: there is no listener, the file does not exist \(ENOENT\)$/)
    expect(error.attempts).toBeGreaterThan(1)
    expect(error.elapsedMs).toBeLessThanOrEqual(200)
    expect(clock.now()).toBeGreaterThan(150)
    expect(clock.now()).toBeLessThan(200)
  })

  it('lets timeoutMs cut the budget short', async () => {
    const clock = eagerClock()
    await failure(dial({ retry: { ...retry, budgetMs: 10_000 }, timeoutMs: 100, clock }))
    expect(clock.now()).toBeLessThan(100)
  })

  it('holds EACCES and EPERM for final', async () => {
    for (const code of ['EACCES', 'EPERM']) {
      const error = connectError({ transport: 'unix', path }, Object.assign(new Error('no'), { code }))
      expect(error).toMatchObject({ code, retryable: false })
    }
  })
})

describe('abort', () => {
  const reason = new Error('enough')

  async function aborted(promise: Promise<unknown>): Promise<void> {
    expect(await failure(promise)).toMatchObject({ code: 'ABORTED', retryable: false, cause: reason })
  }

  it('before the first attempt', async () => {
    let connections = 0
    await vmm(() => connections++)
    await aborted(dial({ signal: AbortSignal.abort(reason), retry: true }))
    expect(connections).toBe(0)
  })

  it('while connecting', async () => {
    await vmm(() => {})
    const control = new AbortController()
    const dialled = dial({ signal: control.signal })
    control.abort(reason)
    await aborted(dialled)
  })

  it('during the handshake, and the socket is closed', async () => {
    const control = new AbortController()
    const { promise: closed, resolve } = withResolvers<void>()
    await vmm((socket) =>
      onCommand(socket, () => {
        socket.write('OK')
        // EOF, or a reset because of the unread bytes.
        socket.on('end', resolve).on('close', resolve)
        setImmediate(() => control.abort(reason))
      }),
    )
    await aborted(dial({ signal: control.signal, retry: true }))
    await closed
  })

  it('between two attempts', async () => {
    const control = new AbortController()
    const clock: Clock = {
      now: () => 0,
      setTimer: (ms) => {
        if (ms <= 100) setImmediate(() => control.abort(reason))
        return () => {}
      },
    }
    await aborted(dial({ signal: control.signal, retry: true, clock }))
  })

  it('does not touch a connection that is made, and leaves no listener on the signal', async () => {
    await vmm((socket) => onCommand(socket, () => socket.write('OK 1\n')))
    const control = new AbortController()
    const socket = await dial({ signal: control.signal })
    expect(getEventListeners(control.signal, 'abort')).toEqual([])
    control.abort(reason)
    await new Promise(setImmediate)
    expect(socket.destroyed).toBe(false)
  })

  it('of a signal that many share needs one listener, reaches each of them, and leaves none', async () => {
    await vmm(() => {})
    const control = new AbortController()
    const listeners = () => getEventListeners(control.signal, 'abort').length
    const dialling = Array.from({ length: 12 }, (_, i) => aborted(dial({ signal: control.signal, retry: i % 2 === 0 })))
    const brief = failure(dial({ signal: control.signal, timeoutMs: 1 }))
    expect(listeners()).toBe(1)
    expect((await brief).code).toBe('ETIMEDOUT')
    expect(listeners()).toBe(1)
    control.abort(reason)
    await Promise.all(dialling)
    expect(listeners()).toBe(0)
  })

  it('between attempts reaches many, too', async () => {
    const control = new AbortController()
    const clock: Clock = { now: () => 0, setTimer: () => () => {} }
    const dialling = Array.from({ length: 12 }, () => aborted(dial({ signal: control.signal, retry: true, clock })))
    // There is no listener on the path, and the clock stands still.
    for (let i = 0; i < 20; i++) await new Promise(setImmediate)
    expect(getEventListeners(control.signal, 'abort')).toHaveLength(1)
    control.abort(reason)
    await Promise.all(dialling)
    expect(getEventListeners(control.signal, 'abort')).toHaveLength(0)
  })
})

describe.runIf(process.platform === 'linux')('descriptors', () => {
  it('do not leak over 500 connections, made and refused', async () => {
    let n = 0
    await vmm((socket) => {
      socket.on('end', () => socket.destroy())
      const answer = ['OK 1\n', 'NO\n', undefined][n++ % 3]
      onCommand(socket, () => (answer ? socket.write(answer) : socket.destroy()))
    })
    const before = openDescriptors()
    for (let i = 0; i < 500; i++) {
      const socket = await connect(`hvsock://${path}:219`).catch(() => undefined)
      if (socket) await new Promise((resolve) => socket.once('close', resolve).destroy())
    }
    // The server's side of the last few may still be closing.
    await expect.poll(openDescriptors).toBeLessThanOrEqual(before)
  })
})

function withResolvers<T>() {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((r) => {
    resolve = r
  })
  return { promise, resolve }
}
