import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import * as http2 from 'node:http2'
import { connect as netConnect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex, PassThrough } from 'node:stream'
import * as tls from 'node:tls'
import type { Clock } from '@upcall/foundation/clock'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FiredClock } from '../testing/fired-clock.js'
import { connect } from './connect.js'
import { type HybridServer, type ListenHybridOptions, listenHybrid } from './hybrid.js'
import type { Refusal } from './hybrid-handshake.js'
import { listen, type VsockServer } from './listen.js'

let dir: string
let path: string
const closers: (() => unknown)[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  path = join(dir, 'vm.sock')
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  expect(readdirSync(dir)).toEqual([])
  rmSync(dir, { recursive: true, force: true })
})

async function serve(options: Partial<ListenHybridOptions>): Promise<HybridServer & { refusals: Refusal[] }> {
  const server = await listenHybrid({ path, route: () => undefined, ...options })
  closers.push(() => server.close())
  const refusals: Refusal[] = []
  server.on('refused', (refusal) => refusals.push(refusal))
  return Object.assign(server, { refusals })
}

async function guestAt(name: string): Promise<VsockServer> {
  const server = await listen(`unix:${dir}/${name}`, { allowHalfOpen: true })
  closers.push(async () => {
    server.closeAllConnections()
    await server.close()
  })
  return server
}

/** A dialer that is not read until the test says so. */
async function dial(): Promise<Socket> {
  const socket = netConnect({ path, allowHalfOpen: true }).on('error', () => {})
  closers.push(() => socket.destroy())
  await new Promise((resolve) => socket.once('connect', resolve))
  return socket
}

async function until(holds: () => boolean): Promise<void> {
  await expect.poll(holds, { timeout: 10_000, interval: 2 }).toBe(true)
}

/** The guest's end in memory: what came, and how it ended. */
class Guest extends Duplex {
  taken = 0
  /** Chunks that it has not taken yet wait for `swallow()`. */
  readonly #waiting: (() => void)[] = []
  readonly #slow: boolean
  /** What writing to it fails with. */
  refuses: Error | undefined
  failure: Error | undefined

  constructor(slow = false) {
    super({ allowHalfOpen: true })
    this.#slow = slow
    this.on('error', (error) => {
      this.failure = error
    })
  }
  override _read() {}
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void) {
    if (this.refuses) return done(this.refuses)
    const take = () => {
      this.taken += chunk.length
      done()
    }
    if (this.#slow) this.#waiting.push(take)
    else take()
  }
  /** Takes the next chunk, if one waits. */
  swallow(): boolean {
    const next = this.#waiting.shift()
    next?.()
    return next !== undefined
  }
}

const errno = (code: string) => Object.assign(new Error(code), { code })

it('answers a dialer that half-closes before the reply', async () => {
  const guest = new Guest()
  let answer = (_: Duplex) => {}
  const server = await serve({ route: () => new Promise((resolve) => (answer = resolve)) })
  const dialer = await dial()
  let heard = ''
  dialer.on('data', (chunk) => (heard += chunk)).end('CONNECT 52\n')
  for (let i = 0; i < 50; i++) await new Promise(setImmediate)
  answer(guest)
  guest.push('banner')
  guest.push(null)
  await until(() => heard === 'OK 1073741824\nbanner')
  await until(() => guest.writableFinished)
  expect(server.refusals).toEqual([])
  expect(guest.failure).toBeUndefined()
})

it('drops a dialer that half-closes before the reply where its EOF shuts both ways', async () => {
  const server = await serve({ halfClose: false, route: () => new Promise(() => {}) })
  ;(await dial()).end('CONNECT 52\n')
  await until(() => server.refusals.length === 1)
  expect(server.refusals).toMatchObject([{ port: 52, reason: 'dialer-gone' }])
})

it.each(['at once', 'after it had half-closed'])(
  'drops a dialer that closes before the reply %s, and aborts its route',
  async (when) => {
    const clock = new FiredClock()
    let signal: AbortSignal | undefined
    const server = await serve({
      clock,
      handshakeTimeoutMs: 60_000,
      route: (_port, context) => {
        signal = context.signal
        return new Promise(() => {})
      },
    })
    const dialer = await dial()
    if (when === 'at once') {
      dialer.write('CONNECT 52\n')
      await until(() => signal !== undefined)
      dialer.destroy()
    } else {
      dialer.end('CONNECT 52\n')
      // The deadline, and the next look at the dialer.
      await until(() => clock.pending === 2)
      expect(server.refusals).toEqual([])
      dialer.destroy()
      await new Promise((resolve) => dialer.once('close', resolve))
      clock.fire(50)
    }
    await until(() => server.refusals.length === 1)
    expect(server.refusals).toMatchObject([{ port: 52, reason: 'dialer-gone' }])
    expect(signal?.aborted).toBe(true)
  },
)

it.each([
  [0, false],
  [5, false],
  [150_000, false],
  [150_000, true],
  [3_000_000, true],
])('a dialer says %d bytes and closes at once: the guest has them all and an orderly end (slow: %s)', async (bytes, slow) => {
  const guest = new Guest(slow)
  let answer: ((stream: Duplex) => void) | undefined
  const server = await serve({
    route: () =>
      new Promise((resolve) => {
        answer = resolve
      }),
  })
  const dialer = await dial()
  dialer.write('CONNECT 5000\n')
  const closed = new Promise<void>((resolve) => dialer.once('close', () => resolve()))
  dialer.write(Buffer.alloc(bytes), () => dialer.destroy())
  await until(() => answer !== undefined)
  if (bytes === 0) {
    await until(() => server.refusals.length === 1)
    answer?.(guest)
    await until(() => guest.destroyed)
    expect(server.refusals).toMatchObject([{ port: 5000, reason: 'dialer-gone' }])
    return
  }
  // As much as the kernel keeps: the dialer is long gone when the guest begins to take something.
  if (bytes < 200_000) await closed
  answer?.(guest)
  if (slow) await until(() => !guest.swallow() && guest.writableFinished)
  await until(() => guest.destroyed)
  expect([guest.taken, guest.writableFinished, guest.failure]).toEqual([bytes, true, undefined])
  await until(() => server.size === 0)
  expect(server.refusals).toEqual([])
})

it('tells a guest that its answer did not arrive, after it has had all bytes', async () => {
  const guest = new Guest(true)
  await serve({ route: () => guest })
  const dialer = await dial()
  dialer.write('CONNECT 5000\n')
  await new Promise((resolve) => dialer.write(Buffer.alloc(150_000), resolve))
  dialer.destroy()
  await new Promise((resolve) => dialer.once('close', resolve))
  await until(() => guest.writableLength > 0)
  guest.push(Buffer.alloc(1000))
  await until(() => !guest.swallow() && guest.destroyed)
  expect([guest.taken, guest.writableFinished]).toEqual([150_000, true])
  expect(guest.failure).toMatchObject({ code: 'EPIPE' })
})

it("breaks the guest's end when the dialer is reset", async () => {
  const guest = new Guest()
  await serve({ route: () => guest })
  const dialer = await dial()
  dialer.pause().write('CONNECT 52\n')
  await until(() => dialer.readableLength > 0)
  guest.push(Buffer.alloc(1 << 20))
  await until(() => guest.readableLength < 1 << 20)
  // More than it holds in this process: the kernel has some of it left.
  dialer.destroy()
  await until(() => guest.destroyed)
  expect(guest.failure).toMatchObject({ code: expect.stringMatching(/ECONNRESET|EPIPE/) })
})

it.each([
  ['in memory', true],
  ['behind a Unix socket', false],
])('a guest %s that takes nothing more is heard to its end', async (_, inMemory) => {
  const dialerSays = Buffer.alloc(1)
  let send: (bytes: Buffer | null) => void
  if (inMemory) {
    const guest = new Guest()
    guest.refuses = errno('EPIPE')
    send = (bytes) => void guest.push(bytes)
    await serve({ route: () => guest })
  } else {
    const guests = await guestAt('guest')
    // It reads nothing, closes its reading side: `shutdown(SHUT_RD)` is beyond Node, so the route's stream fails as it would then.
    let far: Socket | undefined
    guests.on('connection', (socket) => {
      far = socket
    })
    await serve({
      route: async () => {
        const near = await connect(`unix:${dir}/guest`)
        near._write = (_chunk, _encoding, done) => done(errno('EPIPE'))
        return near
      },
    })
    send = (bytes) => void (bytes === null ? far?.end() : far?.write(bytes))
  }
  const dialer = await dial()
  let heard = 0
  let ended = false
  dialer
    .on('data', (chunk: Buffer) => {
      heard += chunk.length
    })
    .on('end', () => {
      ended = true
    })
  const reply = 'OK 1073741824\n'.length
  dialer.write('CONNECT 52\n')
  await until(() => heard === reply)
  dialer.write(dialerSays)
  for (let i = 1; i <= 20; i++) {
    send(Buffer.alloc(100_000))
    await until(() => heard === reply + i * 100_000)
  }
  expect(ended).toBe(false)
  send(null)
  await until(() => ended)
  expect(heard).toBe(reply + 2_000_000)
})

it('a guest that ended before the reply, or takes nothing at all, is heard', async () => {
  const guest = new PassThrough({ allowHalfOpen: true })
  guest.end('all there is')
  const server = await serve({ route: () => guest })
  const dialer = await dial()
  let heard = ''
  dialer.on('data', (chunk) => (heard += chunk)).write('CONNECT 52\nlost')
  await until(() => heard === 'OK 1073741824\nall there is')
  await until(() => server.size === 0)
})

it("the dialer's bytes reach a slow guest before its EOF shuts both ways", async () => {
  const guest = new Guest(true)
  await serve({ halfClose: false, route: () => guest })
  const dialer = await dial()
  dialer.resume().end(Buffer.concat([Buffer.from('CONNECT 52\n'), Buffer.alloc(1_000_000)]))
  await until(() => !guest.swallow() && guest.destroyed)
  expect([guest.taken, guest.writableFinished, guest.failure]).toEqual([1_000_000, true, undefined])
})

it("close() in the middle breaks the guest's end", async () => {
  const guest = new Guest()
  const server = await serve({ route: () => guest })
  const dialer = await dial()
  dialer.resume().write('CONNECT 52\nhello')
  await until(() => guest.taken === 5)
  await server.close()
  await until(() => guest.destroyed)
  expect(guest.failure).toBeInstanceOf(Error)
})

it('takes a command in pieces, unless a profile says otherwise', async () => {
  const server = await serve({ route: () => new Guest() })
  const dialer = await dial()
  let heard = ''
  dialer.on('data', (chunk) => (heard += chunk))
  for (const piece of ['CON', 'NECT 50', '00\n']) {
    dialer.write(piece)
    for (let i = 0; i < 10; i++) await new Promise(setImmediate)
  }
  await until(() => heard === 'OK 1073741824\n')
  expect(server.refusals).toEqual([])
})

it.each([
  ['firecracker', {}, false, false],
  ['dragonball', {}, false, false],
  ['cloud-hypervisor', {}, true, true],
  [undefined, {}, true, true],
  ['firecracker', { halfClose: true }, false, true],
  ['cloud-hypervisor', { halfClose: false }, true, false],
] as const)('profile %s %j: pieces %s, half-close %s', async (profile, options, pieces, halfClose) => {
  const guests: Guest[] = []
  const server = await serve({
    profile,
    ...options,
    route: () => {
      guests.push(new Guest())
      return guests.at(-1)
    },
  })
  const torn = await dial()
  torn.resume().write('CONNECT')
  for (let i = 0; i < 10; i++) await new Promise(setImmediate)
  if (pieces) {
    torn.write(' 52\n')
    await until(() => guests.length === 1)
  } else {
    await until(() => server.refusals.length === 1)
    expect(server.refusals[0]).toMatchObject({ reason: 'bad-command' })
  }
  const asking = await dial()
  let heard = ''
  asking.on('data', (chunk) => (heard += chunk)).end('CONNECT 52\nasked')
  const guest = () => guests.at(-1)!
  await until(() => guests.length === (pieces ? 2 : 1) && guest().writableFinished)
  for (let i = 0; i < 20; i++) await new Promise(setImmediate)
  guest().push('answer')
  guest().push(null)
  await until(() => guest().destroyed)
  await until(() => asking.readableEnded)
  expect(heard.includes('answer')).toBe(halfClose)
})

it('says what is missing of a command that ends without its newline', async () => {
  const server = await serve({})
  ;(await dial()).end('CONNECT 52')
  await until(() => server.refusals.length === 1)
  expect(server.refusals[0]).toMatchObject({ reason: 'bad-command', cause: { message: expect.stringMatching(/newline/) } })
})

it('a profile that does not exist is refused', async () => {
  await expect(serve({ profile: 'qemu' as never })).rejects.toThrow(/firecracker, cloud-hypervisor, dragonball/)
})

describe('TLS to a VMM without half-close', () => {
  const psk = Buffer.alloc(16, 7)
  const options = { ciphers: 'PSK-AES128-GCM-SHA256', maxVersion: 'TLSv1.2' } as const

  /** The client asks and ends at once; `answer` is what the guest does when it has seen that. */
  async function ask(answer: (guest: tls.TLSSocket) => void, clock?: Clock) {
    const guests = await guestAt('guest')
    async function answerLate(guest: tls.TLSSocket) {
      for (let i = 0; i < 200; i++) await new Promise(setImmediate)
      answer(guest)
    }
    guests.on('connection', (socket) => {
      const guest = new tls.TLSSocket(socket, { ...options, isServer: true, pskCallback: () => psk } as tls.TLSSocketOptions)
      guest.on('error', () => {}).resume()
      guest.once('end', () => void answerLate(guest))
    })
    await serve({ profile: 'firecracker', route: () => connect(`unix:${dir}/guest`) })
    const socket = await connect(`hvsock://${path}:52`, { clock, lingerMs: 250 })
    const client = tls.connect({
      ...options,
      socket,
      pskCallback: () => ({ psk, identity: 'host' }),
      checkServerIdentity: () => undefined,
    })
    let received = 0
    client.on('data', (chunk) => {
      received += chunk.length
    })
    const closed = new Promise((resolve) => client.once('close', () => resolve('close')))
    const ended = Promise.race([
      new Promise<unknown>((resolve) => client.once('end', () => resolve('end')).once('error', resolve)),
      closed,
    ])
    client.end('question')
    return { client, socket, ended, closed, received: () => received }
  }

  it("loses nothing of the guest's answer", async () => {
    const { socket, ended, closed, received } = await ask((guest) => guest.end(Buffer.alloc(1 << 20)), new FiredClock())
    expect([await ended, received()]).toEqual(['end', 1 << 20])
    await closed
    expect(socket.destroyed).toBe(true)
  })

  it('keeps what it has deciphered for a client that reads late', async () => {
    const { client, socket, ended, closed, received } = await ask((guest) => guest.end(Buffer.alloc(10_000)), new FiredClock())
    client.pause()
    // Both directions are over before the client reads.
    await until(() => socket.readableEnded && socket.writableFinished)
    for (let i = 0; i < 20; i++) await new Promise(setImmediate)
    client.resume()
    expect([await ended, received()]).toEqual(['end', 10_000])
    await closed
    expect(socket.destroyed).toBe(true)
  })

  it('fails loudly when the guest stays silent', async () => {
    const clock = new FiredClock()
    const { ended, received } = await ask(() => clock.fire(250), clock)
    expect(await ended).toMatchObject({ code: 'ETIMEDOUT', op: 'shutdown' })
    expect(received()).toBe(0)
  })
})

describe('HTTP/2 to a VMM without half-close', () => {
  /** A request that the guest answers so. */
  async function ask(respond: (stream: http2.ServerHttp2Stream, session: http2.Http2Session) => void) {
    const server = http2.createServer()
    let guest: Socket | undefined
    server.once('connection', (socket) => {
      guest = socket
    })
    server.on('stream', (stream) =>
      respond(
        stream.on('error', () => {}),
        stream.session as http2.Http2Session,
      ),
    )
    await new Promise<void>((resolve) => server.listen(`${dir}/guest`, resolve))
    closers.push(() => new Promise((resolve) => server.close(resolve)))
    await serve({ profile: 'firecracker', route: () => connect(`unix:${dir}/guest`) })
    const socket = await connect(`hvsock://${path}:52`)
    const session = http2.connect('http://guest', { createConnection: () => socket })
    const request = session.request({ ':path': '/' })
    const over = new Promise<void>((resolve) => session.once('close', resolve))
    const ended = new Promise<unknown>((resolve) => {
      request
        .once('end', () => resolve('end'))
        .once('error', resolve)
        .once('close', () => resolve('close'))
    })
    return { socket, session, request, over, ended, guest: { destroy: () => guest?.destroy() } }
  }

  it('keeps what a client that reads slowly has not taken', async () => {
    const { socket, request, over, ended } = await ask((stream, session) => {
      stream.respond()
      stream.end(Buffer.alloc(200_000))
      session.close()
    })
    let received = 0
    let reading = true
    void ended.then(() => {
      reading = false
    })
    request.on('readable', () => {})
    while (reading) {
      received += request.read(Math.min(1_000, request.readableLength) || undefined)?.length ?? 0
      await new Promise(setImmediate)
    }
    expect([await ended, received]).toEqual(['end', 200_000])
    await over
    expect(socket.destroyed).toBe(true)
  })

  it('sees that the guest has gone', async () => {
    const { socket, session, request, over, guest } = await ask((stream) => {
      stream.respond()
      stream.write('and then')
    })
    request.once('data', () => guest.destroy())
    await over
    expect([session.destroyed, socket.destroyed]).toEqual([true, true])
  })
})
