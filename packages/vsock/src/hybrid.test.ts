import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { connect as netConnect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex, PassThrough } from 'node:stream'
import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FiredClock } from '../testing/fired-clock.js'
import { connect } from './connect.js'
import { type HybridServer, type ListenHybridOptions, listenHybrid } from './hybrid.js'
import type { Refusal } from './hybrid-handshake.js'
import { listen, type VsockServer } from './listen.js'
import type { VsockSocket } from './socket.js'

let dir: string
let path: string
let guest: VsockServer
let servers: HybridServer[] = []
let dialers: Socket[] = []

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  path = join(dir, 'vm.sock')
  guest = await listen(`unix:${dir}/guest`)
})
afterEach(async () => {
  for (const dialer of dialers) dialer.destroy()
  for (const server of servers) await server.close()
  guest.closeAllConnections()
  await guest.close()
  expect(readdirSync(dir)).toEqual([])
  servers = []
  dialers = []
  rmSync(dir, { recursive: true, force: true })
})

/** The guest listens on port 52 and on nothing else. */
const toGuest: ListenHybridOptions['route'] = async (port, { signal }) =>
  port === 52 ? connect(`unix:${dir}/guest`, { signal }) : undefined

async function serve(options: Partial<ListenHybridOptions> = {}): Promise<HybridServer & { refusals: Refusal[] }> {
  const server = await listenHybrid({ path, route: toGuest, ...options })
  servers.push(server)
  const refusals: Refusal[] = []
  server.on('refused', (refusal) => refusals.push(refusal))
  return Object.assign(server, { refusals })
}

/** A dialer that says what it is told, byte for byte, and keeps what it hears. */
async function raw(): Promise<Socket & { heard: () => string; ended: Promise<void> }> {
  const socket = netConnect({ path, allowHalfOpen: true })
  dialers.push(socket)
  let heard = ''
  const ended = new Promise<void>((resolve) => {
    socket.on('end', resolve).on('close', () => resolve())
  })
  socket.on('error', () => {}).on('data', (chunk) => (heard += chunk.toString('latin1')))
  await new Promise((resolve) => socket.once('connect', resolve))
  return Object.assign(socket, { heard: () => heard, ended })
}

async function until(holds: () => boolean): Promise<void> {
  for (let turn = 0; turn < 20_000; turn++) {
    if (holds()) return
    await new Promise(setImmediate)
  }
  throw new Error('it never came to hold')
}

async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate)
}

const acceptOne = () => new Promise<VsockSocket>((resolve) => guest.once('connection', resolve))

describe('as Firecracker does', () => {
  it.each(['CONNECT 52\n', 'connect 52\n', 'Connect 52\n'])(
    'answers %j with the host-side port, from 2^30 up',
    async (command) => {
      await serve()
      guest.on('connection', (socket) => socket.resume())
      for (const reply of ['OK 1073741824\n', 'OK 1073741825\n']) {
        const dialer = await raw()
        dialer.write(command)
        await until(() => dialer.heard().length >= reply.length)
        expect(dialer.heard()).toBe(reply)
      }
    },
  )

  it('closes without text where there is no listener', async () => {
    const server = await serve()
    const dialer = await raw()
    dialer.write('CONNECT 53\n')
    await dialer.ended
    expect(dialer.heard()).toBe('')
    expect(server.refusals).toEqual([{ port: 53, reason: 'no-route', cause: undefined }])
  })

  it('takes a command of 32 bytes with its newline, and closes on a longer one', async () => {
    const server = await serve()
    guest.on('connection', (socket) => socket.resume())
    const longest = `CONNECT ${'0'.repeat(21)}52\n`
    expect(longest).toHaveLength(32)
    const good = await raw()
    good.write(longest)
    await until(() => good.heard() === 'OK 1073741824\n')
    const bad = await raw()
    bad.write(longest.replace('CONNECT', 'CONNECT '))
    await bad.ended
    expect(bad.heard()).toBe('')
    expect(server.refusals[0]).toMatchObject({ reason: 'bad-command' })
  })

  it('closes on a command split over two writes, at every split', async () => {
    const command = 'CONNECT 52\n'
    const server = await serve({ profile: 'firecracker' })
    for (let split = 1; split < command.length; split++) {
      const dialer = await raw()
      dialer.write(command.slice(0, split))
      await dialer.ended
      dialer.write(command.slice(split))
      expect(dialer.heard()).toBe('')
      expect(server.refusals).toHaveLength(split)
    }
    expect(server.refusals.every(({ reason }) => reason === 'bad-command')).toBe(true)
  })

  it('keeps the bytes pipelined after the newline', async () => {
    await serve()
    let said = ''
    guest.on('connection', (socket) => socket.on('data', (chunk) => (said += chunk)))
    const dialer = await raw()
    dialer.write('CONNECT 52\nhello\nCONNECT 53\n')
    await until(() => said.length === 17)
    expect(said).toBe('hello\nCONNECT 53\n')
    expect(dialer.heard()).toBe('OK 1073741824\n')
  })

  it('keeps pipelined bytes that are followed by EOF at once', async () => {
    await serve()
    guest.on('connection', (socket) => socket.pipe(socket))
    const dialer = await raw()
    dialer.end('CONNECT 52\nhello')
    await dialer.ended
    expect(dialer.heard()).toBe('OK 1073741824\nhello')
  })

  it('keeps a megabyte pipelined after the newline, whole and in order', async () => {
    await serve()
    const bytes = Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 251 }, (_, i) => i)))
    const chunks: Buffer[] = []
    guest.on('connection', (socket) => socket.on('data', (chunk) => chunks.push(chunk)).on('end', () => socket.end()))
    const dialer = await raw()
    dialer.end(Buffer.concat([Buffer.from('CONNECT 52\n'), bytes]))
    await dialer.ended
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true)
  })

  it.each(['CONNECT\n', 'CONNECT -1\n', 'CONNECT 4294967296\n', 'HELLO WORLD\n', '\n\n\n\n\n\n\n\n\n\n', '\0'.repeat(64)])(
    'closes on %j',
    async (command) => {
      const server = await serve()
      const dialer = await raw()
      dialer.write(command)
      await dialer.ended
      expect(dialer.heard()).toBe('')
      expect(server.refusals).toMatchObject([{ port: undefined, reason: 'bad-command', cause: expect.any(Error) }])
    },
  )
})

it('waits for the pieces of a command as Cloud Hypervisor does', async () => {
  const server = await serve({ profile: 'cloud-hypervisor' })
  let said = ''
  guest.on('connection', (socket) => socket.on('data', (chunk) => (said += chunk)))
  const dialer = await raw()
  for (const byte of 'CONNECT 52\nhi') {
    dialer.write(byte)
    await turns(3)
  }
  await until(() => said === 'hi')
  expect(dialer.heard()).toBe('OK 1073741824\n')
  const long = await raw()
  for (let i = 0; i < 32; i++) long.write(' ')
  await long.ended
  expect(server.refusals).toMatchObject([{ reason: 'bad-command' }])
})

describe('before the reply', () => {
  it('closes a dialer that says nothing by the deadline, and one whose guest stays silent', async () => {
    const clock = new FiredClock()
    let routed: AbortSignal | undefined
    const server = await serve({
      clock,
      route: (_port, { signal }) => {
        routed = signal
        return new Promise(() => {})
      },
    })
    const silent = await raw()
    const waiting = await raw()
    waiting.write('CONNECT 52\n')
    await until(() => routed !== undefined)
    clock.fire()
    await Promise.all([silent.ended, waiting.ended])
    expect(server.refusals).toMatchObject([
      { port: undefined, reason: 'timeout' },
      { port: 52, reason: 'timeout' },
    ])
    await until(() => routed?.aborted === true)
    expect(clock.pending).toBe(0)
  })

  it('has no deadline any more once it has answered', async () => {
    const clock = new FiredClock()
    await serve({ clock })
    guest.on('connection', (socket) => socket.pipe(socket))
    const dialer = await raw()
    dialer.write('CONNECT 52\n')
    await until(() => dialer.heard() !== '')
    expect(clock.pending).toBe(0)
  })

  it('aborts the route when the dialer goes away, and destroys what comes too late', async () => {
    let routed: AbortSignal | undefined
    let arrive: (stream: Duplex) => void = () => {}
    const server = await serve({
      route: (_port, { signal }) => {
        routed = signal
        return new Promise((resolve) => {
          arrive = resolve
        })
      },
    })
    const dialer = await raw()
    dialer.write('CONNECT 52\n')
    await until(() => routed !== undefined)
    dialer.destroy()
    await until(() => routed?.aborted === true)
    expect(server.refusals).toMatchObject([{ port: 52, reason: 'dialer-gone' }])
    const late = new PassThrough()
    arrive(late)
    await until(() => late.destroyed)
  })

  it('aborts the route and closes the dialer at close()', async () => {
    let routed: AbortSignal | undefined
    const server = await serve({
      route: (_port, { signal }) => {
        routed = signal
        return new Promise(() => {})
      },
    })
    const dialer = await raw()
    dialer.write('CONNECT 52\n')
    await until(() => routed !== undefined)
    await server.close()
    expect(routed?.aborted).toBe(true)
    await dialer.ended
    expect(server.size).toBe(0)
  })

  it.each([
    ['rejects', () => Promise.reject(new Error('no guest'))],
    [
      'throws',
      () => {
        throw new Error('no guest')
      },
    ],
  ])('closes without text if the route %s', async (_, route) => {
    const server = await serve({ route })
    const dialer = await raw()
    dialer.write('CONNECT 52\n')
    await dialer.ended
    expect(dialer.heard()).toBe('')
    expect(server.refusals).toMatchObject([{ port: 52, reason: 'route-failed', cause: { message: 'no guest' } }])
  })

  it.each([{}, 'x', 5, new Uint8Array(1)])(
    'closes without text if the route gives %o, which is not a stream',
    async (nonsense) => {
      const server = await serve({ route: () => nonsense as never })
      const dialer = await raw()
      dialer.write('CONNECT 52\n')
      await dialer.ended
      expect(dialer.heard()).toBe('')
      const cause = new TypeError('route: must return a Duplex or undefined')
      expect(server.refusals).toEqual([{ port: 52, reason: 'route-failed', cause }])
      expect(server.size).toBe(0)
    },
  )

  it('closes a dialer whose guest has gone by the time of the answer', async () => {
    const server = await serve({ route: () => new PassThrough().destroy() })
    const dialer = await raw()
    dialer.write('CONNECT 52\n')
    await dialer.ended
    expect(dialer.heard()).toBe('')
    expect(server.refusals).toMatchObject([{ reason: 'no-route' }])
  })

  it('closes dialers beyond maxPending, and makes room when one is done', async () => {
    const server = await serve({ maxPending: 1 })
    guest.on('connection', (socket) => socket.resume())
    const first = await raw()
    await until(() => server.size === 1)
    const second = await raw()
    await second.ended
    expect(server.refusals).toMatchObject([{ reason: 'too-many' }])
    first.write('CONNECT 52\n')
    await until(() => first.heard() !== '')
    const third = await raw()
    third.write('CONNECT 52\n')
    await until(() => third.heard() === 'OK 1073741825\n')
  })
})

describe('afterwards', () => {
  it('passes half-close through, both ways', async () => {
    await serve()
    const accepted = acceptOne()
    const near = await connect(`hvsock://${path}:52`, { halfClose: true })
    const far = await accepted
    let asked = ''
    far.on('data', (chunk) => (asked += chunk)).on('end', () => far.end(`${asked}, answered after EOF`))
    near.end('asked')
    let answer = ''
    for await (const chunk of near) answer += chunk
    expect(answer).toBe('asked, answered after EOF')
  })

  it("shuts both ways down on the dialer's EOF with halfClose: false, as Firecracker does", async () => {
    await serve({ halfClose: false })
    let asked = ''
    guest.on('connection', (socket) => {
      socket.on('error', () => {}).on('data', (chunk) => (asked += chunk))
      socket.on('end', () => socket.end('too late'))
    })
    const dialer = await raw()
    dialer.write('CONNECT 52\n')
    await until(() => dialer.heard() !== '')
    dialer.end('asked')
    await dialer.ended
    await until(() => guest.connections.size === 0)
    expect(asked).toBe('asked')
    expect(dialer.heard()).toBe('OK 1073741824\n')
  })

  it("destroys the guest's end when the dialer breaks off", async () => {
    const end = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
    const server = await serve({ route: () => end })
    const connected = new Promise((resolve) => server.once('connection', resolve))
    // Paused, it leaves the reply unread, and its close is a reset.
    const dialer = netConnect(path).pause()
    dialer.write('CONNECT 52\n')
    await connected
    await new Promise(setImmediate)
    dialer.destroy()
    await until(() => end.destroyed)
    await until(() => server.size === 0)
  })

  it("carries the guest's reset to the dialer, and the dialer's to the guest", async () => {
    const server = await serve()
    const accepted = acceptOne()
    const near = await connect(`hvsock://${path}:52`)
    const far = await accepted
    const ended = new Promise((resolve) => near.once('end', resolve).resume())
    far.destroy()
    await ended
    near.destroy()
    const again = acceptOne()
    const other = await connect(`hvsock://${path}:52`)
    const otherFar = await again
    const gone = new Promise((resolve) => otherFar.once('end', resolve).resume())
    other.destroy()
    await gone
    otherFar.destroy()
    await until(() => server.size === 0)
  })

  it("survives errors on the guest's stream", async () => {
    const streams: Duplex[] = []
    const server = await serve({
      route: () => {
        const stream = new PassThrough()
        streams.push(stream)
        return stream
      },
    })
    const near = await connect(`hvsock://${path}:52`)
    const ended = new Promise((resolve) => near.once('end', resolve).resume())
    await until(() => streams.length === 1)
    streams[0]!.destroy(new Error('the guest crashed'))
    await ended
    near.destroy()
    await until(() => server.size === 0)
  })

  it('holds a sender back whose reader is slow, in both directions', async () => {
    await serve()
    const accepted = acceptOne()
    const near = await connect(`hvsock://${path}:52`, { halfClose: true })
    const far = await accepted
    const chunk = Buffer.alloc(64 << 10, 7)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      let written = 0
      // Until the pipe is full: there is no reader at the other end.
      for (;;) {
        const free = from.write(chunk)
        written += chunk.length
        if (free) continue
        const drained = await Promise.race([
          new Promise<boolean>((resolve) => from.once('drain', () => resolve(true))),
          turns(200).then(() => false),
        ])
        if (!drained) break
        if (written > 64 << 20) throw new Error('64 MiB have gone somewhere')
      }
      expect(written).toBeLessThan(8 << 20)
      let read = 0
      to.on('data', (data: Buffer) => {
        read += data.length
      })
      await until(() => read === written)
      to.pause().removeAllListeners('data')
    }
    near.destroy()
  })

  it('lets a slow guest read to the end what a dialer left behind', async () => {
    const server = await serve()
    const accepted = acceptOne()
    const dialer = await raw()
    dialer.write('CONNECT 52\n')
    const far = await accepted
    // The guest ends first, and reads late.
    far.end()
    await dialer.ended
    dialer.end(Buffer.alloc(300_000))
    await until(() => server.size === 0)
    let read = 0
    far.on('data', (chunk: Buffer) => {
      read += chunk.length
    })
    await until(() => far.destroyed)
    expect(read).toBe(300_000)
  })

  it('leaves nothing open after close(): dialers, guests and those that only finish writing', async () => {
    const stuck = new Duplex({ read() {}, write() {} })
    const server = await serve({ route: (port, context) => (port === 7 ? stuck : toGuest(port, context)) })
    const accepted = acceptOne()
    const near = await connect(`hvsock://${path}:52`)
    const far = await accepted
    const dialer = await raw()
    dialer.end('CONNECT 7\nnever written to the end')
    await until(() => dialer.heard() !== '')
    const ends = [near, far].map((socket) => new Promise((resolve) => socket.once('end', resolve).resume()))
    await server.close()
    await server.close()
    await Promise.all(ends)
    near.destroy()
    far.destroy()
    expect(stuck.destroyed).toBe(true)
    expect(server.size).toBe(0)
    expect(existsSync(path)).toBe(false)
  })
})

it('closes with its signal', async () => {
  const control = new AbortController()
  const server = await serve({ signal: control.signal })
  const closed = new Promise<void>((resolve) => server.once('close', resolve))
  control.abort()
  await closed
  expect(existsSync(path)).toBe(false)
  await expect(serve({ signal: AbortSignal.abort('no') })).rejects.toMatchObject({ code: 'ABORTED', cause: 'no' })
})

it('refuses what it cannot work with', async () => {
  await expect(serve({ path: '' })).rejects.toMatchObject({ code: 'ERR_INVALID_ADDRESS' })
  await expect(serve({ path: `/tmp/${'a'.repeat(256)}` })).rejects.toMatchObject({ code: 'ENAMETOOLONG', op: 'listen' })
  await expect(serve({ maxPending: 0 })).rejects.toThrow(RangeError)
  await expect(serve({ handshakeTimeoutMs: -1 })).rejects.toThrow(
    /handshakeTimeoutMs: must be a number of milliseconds above 0, got -1/,
  )
  await serve()
  await expect(serve()).rejects.toMatchObject({ code: 'EADDRINUSE' })
})

describe.runIf(process.platform === 'linux')('descriptors', () => {
  it('do not leak over 500 connections, one after the other', async () => {
    const server = await serve()
    guest.on('connection', (socket) => socket.pipe(socket))
    const count = () => readdirSync('/proc/self/fd').length
    const before = count()
    for (let i = 0; i < 500; i++) {
      const port = i % 5 === 4 ? 53 : 52
      const socket = await connect(`hvsock://${path}:${port}`).catch(() => undefined)
      expect(socket === undefined).toBe(port === 53)
      if (!socket) continue
      socket.write('x')
      await new Promise((resolve) => socket.once('data', resolve))
      await new Promise((resolve) => socket.once('close', resolve).destroy())
    }
    await until(() => server.size === 0 && guest.connections.size === 0)
    await until(() => count() <= before)
  })
})

it('a guest that takes no more, and so never finishes, goes with its dialer', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'hybrid-'))
  const guest = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
  // As a stream into a guest does it after shutdown(SHUT_RD): the callback of end() fails, and there is no 'finish'.
  guest.end = ((done?: (error: Error) => void) => {
    if (done) process.nextTick(done, new Error('EPIPE'))
    return guest
  }) as typeof guest.end
  const gone = new Promise((resolve) => guest.once('close', resolve))
  await using server = await listenHybrid({ path: join(dir, 'vm.sock'), route: () => guest })
  const dialer = netConnect(server.path).on('error', () => {})
  dialer.write('CONNECT 5\n')
  await once(dialer, 'data')
  dialer.end('bytes')
  dialer.destroy()
  await gone
  rmSync(dir, { recursive: true })
})

it('what a listener throws is an uncaught exception, and no rejected promise', async () => {
  const rejections: unknown[] = []
  const onRejection = (reason: unknown) => rejections.push(reason)
  process.on('unhandledRejection', onRejection)
  try {
    using uncaught = catchUncaught()
    const bug = new Error('a bug')
    const fail = () => {
      throw bug
    }
    const server = await serve()
    server.on('refused', fail).on('connection', fail)
    await expect(connect(`hvsock://${path}:53`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(await uncaught.next()).toBe(bug)
    dialers.push(await connect(`hvsock://${path}:52`))
    expect(await uncaught.next()).toBe(bug)
    await turns()
    expect(rejections).toEqual([])
  } finally {
    process.off('unhandledRejection', onRejection)
  }
})
