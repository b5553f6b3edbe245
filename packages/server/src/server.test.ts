import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Clock } from './clock.js'
import type { ServerConnection } from './connection.js'
import { UpcallServer, type UpcallServerOptions } from './server.js'
import type { GuestConnection, GuestService, GuestSession } from './service.js'

/** One end of a stream in memory: allowHalfOpen, backpressure, and the other end learns of a destruction. */
class End extends Duplex {
  peer!: End
  #resume: (() => void) | undefined
  constructor() {
    super({ highWaterMark: 64 })
  }
  override _read(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.peer.push(chunk)) done()
    else this.peer.#resume = done
  }
  override _final(done: () => void): void {
    this.peer.push(null)
    done()
  }
  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.peer.destroyed) this.peer.destroy()
    done(error)
  }
}

function pair(): [guest: End, host: End] {
  const ends = [new End(), new End()] as const
  ends[0].peer = ends[1]
  ends[1].peer = ends[0]
  return [...ends]
}

class ManualClock implements Clock {
  #now = 0
  readonly #timers = new Set<{ at: number; fn: () => void }>()
  now(): number {
    return this.#now
  }
  setTimer(ms: number, fn: () => void): () => void {
    const timer = { at: this.#now + ms, fn }
    this.#timers.add(timer)
    return () => {
      if (!this.#timers.delete(timer)) throw new Error('cancelled a timer that is over')
    }
  }
  get timers(): number {
    return this.#timers.size
  }
  async advance(ms: number): Promise<void> {
    this.#now += ms
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#now || !this.#timers.delete(timer)) continue
      timer.fn()
    }
    await settle()
  }
}

function failing(message: string): never {
  throw new TypeError(message)
}

/** Lets streams in memory and promises run dry. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn()
}

/** Greets with `hi`, answers each chunk with its bytes in brackets. */
class Echo implements GuestSession {
  readonly greeting = Buffer.from('hi')
  readonly received: string[] = []
  closed = 0
  constructor(readonly connection: GuestConnection) {}
  receive(chunk: Uint8Array): Iterable<Uint8Array> | Promise<Iterable<Uint8Array>> {
    const text = Buffer.from(chunk).toString()
    this.received.push(text)
    return [Buffer.from(`[${text}]`)]
  }
  close(): void {
    this.closed += 1
  }
}

function setUp(options: Partial<UpcallServerOptions> & { session?: (connection: GuestConnection) => GuestSession } = {}) {
  const { session = (connection: GuestConnection) => new Echo(connection), ...rest } = options
  const clock = new ManualClock()
  const sessions: GuestSession[] = []
  const echo: GuestService = {
    byte: 0x65,
    open(connection) {
      const opened = session(connection)
      sessions.push(opened)
      return opened
    },
  }
  const server = new UpcallServer({ services: [echo], clock, ...rest })
  const ends: string[] = []
  server.on('disconnect', (_connection, end) => ends.push(end.reason))
  onTestFinished(() => server.close())
  const connect = (remote?: string) => {
    const [guest, host] = pair()
    let received = ''
    const state = { eof: false, closed: false }
    host.on('data', (chunk) => {
      received += chunk
    })
    host.on('end', () => {
      state.eof = true
    })
    host.on('close', () => {
      state.closed = true
    })
    host.on('error', () => {})
    const connection = server.accept(guest, { remote })
    return { guest, host, connection, state, received: () => received }
  }
  return { server, clock, ends, connect, sessions: sessions as Echo[] }
}

describe('a connection', () => {
  test('gets the greeting of the service that its first byte names, then replies', async () => {
    const { connect, server } = setUp()
    const { host, received, connection } = connect('vm 7')
    expect(connection).toMatchObject({ id: 1, remote: 'vm 7', service: undefined })
    await settle()
    expect(received()).toBe('')
    host.write('e')
    await settle()
    expect(received()).toBe('hi')
    expect(connection.service).toBe(0x65)
    host.write('one')
    await settle()
    expect(received()).toBe('hi[one]')
    expect(server.connections.size).toBe(1)
  })

  test('hands on what came behind the service byte in the same chunk', async () => {
    const { connect } = setUp()
    const { host, received } = connect()
    host.write('eone')
    await settle()
    expect(received()).toBe('hi[one]')
  })

  test('passes chunks as they were read, never joined or cut', async () => {
    const { connect, sessions } = setUp()
    const { host } = connect()
    for (const chunk of ['e', 'a', 'bc', 'def']) host.write(chunk)
    await settle()
    expect(sessions[0]!.received).toEqual(['a', 'bc', 'def'])
  })

  test('reads nothing while the service works, and not the end either', async () => {
    let release!: () => void
    const { connect, sessions, ends, server } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override async receive(chunk: Uint8Array) {
            const replies = (await super.receive(chunk)) as Iterable<Uint8Array>
            await new Promise<void>((resolve) => {
              release = resolve
            })
            return replies
          }
        })(connection),
    })
    const { host, received, state } = connect()
    host.write('e')
    await settle()
    host.write('a')
    host.write('b')
    host.end()
    await settle()
    expect(sessions[0]!.received).toEqual(['a'])
    expect(received()).toBe('hi')
    release()
    await settle()
    expect(received()).toBe('hi[a]')
    expect(sessions[0]!.received).toEqual(['a', 'b'])
    expect(ends).toEqual([])
    release()
    await settle()
    expect(received()).toBe('hi[a][b]')
    expect(state).toEqual({ eof: true, closed: true })
    expect(ends).toEqual(['client'])
    expect(sessions[0]!.closed).toBe(1)
    expect(server.connections.size).toBe(0)
  })

  test('takes replies from the service only as fast as the client reads them, and reads nothing meanwhile', async () => {
    let made = 0
    const { connect, sessions } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override *receive(chunk: Uint8Array) {
            super.receive(chunk)
            for (let i = 0; i < 100; i++) {
              made += 1
              yield Buffer.alloc(64, 'x')
            }
          }
        })(connection),
    })
    const { host, connection } = connect()
    host.pause()
    host.write('ego')
    host.write('again')
    await settle()
    expect(made).toBeGreaterThan(0)
    expect(made).toBeLessThan(10)
    expect(sessions[0]!.received).toEqual(['go'])
    host.resume()
    for (let i = 0; i < 100 && made < 200; i++) await settle()
    expect(made).toBe(200)
    expect(sessions[0]!.received).toEqual(['go', 'again'])
    await connection.close()
  })

  test('is served beside others: one that waits holds up nobody', async () => {
    const { connect } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override receive(chunk: Uint8Array) {
            return connection.id === 1 ? new Promise<never>(() => {}) : super.receive(chunk)
          }
        })(connection),
    })
    const first = connect()
    const second = connect()
    first.host.write('ex')
    second.host.write('ey')
    await settle()
    expect(first.received()).toBe('hi')
    expect(second.received()).toBe('hi[y]')
  })

  test('may have been written to before', async () => {
    const { server } = setUp()
    const [guest, host] = pair()
    let received = ''
    guest.write('x'.repeat(200))
    expect(guest.writableNeedDrain).toBe(true)
    server.accept(guest)
    host.on('data', (chunk) => {
      received += chunk
    })
    await settle()
    host.write('e')
    await settle()
    expect(received).toBe(`${'x'.repeat(200)}hi`)
  })

  test('survives a client that answers in the same turn', async () => {
    const { connect, sessions } = setUp()
    const { host } = connect()
    let left = 3
    host.on('data', () => {
      if (left-- > 0) host.write('again')
    })
    host.write('e')
    await settle()
    expect(sessions[0]!.received).toEqual(['again', 'again', 'again'])
  })
})

describe('a connection ends', () => {
  test('on a byte that no service has', async () => {
    const { connect, server } = setUp()
    const { host, connection, received, state } = connect()
    host.write('zzz')
    await expect(connection.closed).resolves.toEqual({ reason: 'unknown-service', byte: 0x7a })
    await settle()
    expect(received()).toBe('')
    expect(state.closed).toBe(true)
    expect(server.connections.size).toBe(0)
  })

  test('when its service is not there yet; the next one may find it', async () => {
    let registered = false
    const service: GuestService = { byte: 0x64, available: () => registered, open: (connection) => new Echo(connection) }
    const { connect, ends } = setUp({ services: [service] })
    const early = connect()
    early.host.write('d')
    await expect(early.connection.closed).resolves.toEqual({ reason: 'unavailable', byte: 0x64 })
    registered = true
    const late = connect()
    late.host.write('d')
    await settle()
    expect(late.received()).toBe('hi')
    expect(ends).toEqual(['unavailable'])
  })

  test('10 s after it was accepted, if no service byte came', async () => {
    const { connect, clock, ends } = setUp()
    const { state } = connect()
    await clock.advance(9_999)
    expect(ends).toEqual([])
    await clock.advance(1)
    expect(ends).toEqual(['service-byte-timeout'])
    expect(state.closed).toBe(true)
    expect(clock.timers).toBe(0)
  })

  test('not 10 s after the service byte', async () => {
    const { connect, clock, ends } = setUp()
    const { host } = connect()
    host.write('e')
    await settle()
    expect(clock.timers).toBe(0)
    await clock.advance(1_000_000)
    expect(ends).toEqual([])
  })

  test('when the client leaves its replies unread for 30 s', async () => {
    const { connect, clock, ends } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override receive() {
            return Array.from({ length: 100 }, () => Buffer.alloc(64))
          }
        })(connection),
    })
    const { host } = connect()
    host.pause()
    host.write('ex')
    await settle()
    await clock.advance(29_999)
    expect(ends).toEqual([])
    // Whoever takes some of it has another 30 s for the rest.
    expect(host.read()).not.toBeNull()
    await settle()
    await clock.advance(29_999)
    expect(ends).toEqual([])
    await clock.advance(1)
    expect(ends).toEqual(['write-timeout'])
  })

  test.each([
    [
      'open',
      () => {
        throw new Error('no')
      },
    ],
    [
      'receive',
      (connection: GuestConnection) =>
        new (class extends Echo {
          override receive(): never {
            throw new Error('no')
          }
        })(connection),
    ],
    [
      'a promise',
      (connection: GuestConnection) =>
        new (class extends Echo {
          override receive() {
            return Promise.reject(new Error('no'))
          }
        })(connection),
    ],
    [
      'a reply',
      (connection: GuestConnection) =>
        new (class extends Echo {
          override *receive(): Iterable<Uint8Array> {
            yield Buffer.from('part')
            throw new Error('no')
          }
        })(connection),
    ],
  ])('when the service fails in %s', async (_where, session) => {
    const { connect, server } = setUp({ session })
    const { host, connection } = connect()
    host.write('ex')
    await expect(connection.closed).resolves.toEqual({ reason: 'service-error', error: new Error('no') })
    expect(server.connections.size).toBe(0)
  })

  // What the types rule out, plain JavaScript does: the connection bears it, not the process.
  test.each<[string, object | undefined, string]>([
    ['no session', undefined, 'open: must return a session, got undefined'],
    ['no greeting', { greeting: undefined }, 'greeting: must be a Uint8Array, got undefined'],
    ['no replies', { receive: () => undefined }, 'receive: must give an iterable of replies, got undefined'],
    ['a promise of none', { receive: async () => null }, 'receive: must give an iterable of replies, got null'],
    ['a text', { receive: () => 'text' }, 'receive: must give an iterable of replies, got string'],
    [
      'what cannot be iterated',
      { receive: () => ({ [Symbol.iterator]: 5 }) },
      'receive: must give an iterable of replies, got object',
    ],
    ['what cannot begin', { receive: () => ({ [Symbol.iterator]: () => failing('no beginning') }) }, 'no beginning'],
    ['a reply that is no bytes', { receive: () => [Buffer.from('part'), 'text'] }, 'reply: must be a Uint8Array, got string'],
    ['one among them that is nothing', { receive: () => [undefined] }, 'reply: must be a Uint8Array, got undefined'],
  ])('when the service gives %s', async (_what, session, message) => {
    const { connect, server } = setUp({
      session: (connection) => (session && Object.assign(new Echo(connection), session)) as GuestSession,
    })
    const { host, connection } = connect()
    host.write('ex')
    const error = expect.objectContaining({ name: 'TypeError', message: expect.stringContaining(message) })
    await expect(connection.closed).resolves.toEqual({ reason: 'service-error', error })
    expect(server.connections.size).toBe(0)
  })

  test('when the stream fails, without an unhandled error', async () => {
    const { connect, sessions } = setUp()
    const { host, guest, connection } = connect()
    host.write('e')
    await settle()
    guest.destroy(new Error('ECONNRESET'))
    await expect(connection.closed).resolves.toEqual({ reason: 'stream-error', error: new Error('ECONNRESET') })
    expect(sessions[0]!.closed).toBe(1)
  })

  test('when the stream was gone before it was accepted', async () => {
    const { server } = setUp()
    const [guest] = pair()
    guest.destroy()
    await settle()
    await expect(server.accept(guest).closed).resolves.toEqual({ reason: 'client' })
  })

  test('when the client had ended its half before it was accepted', async () => {
    const { server } = setUp()
    const [guest, host] = pair()
    guest.resume()
    host.end()
    await settle()
    expect(guest.readableEnded).toBe(true)
    await expect(server.accept(guest).closed).resolves.toEqual({ reason: 'client' })
  })

  test('when nothing can be written to it any more', async () => {
    const { server } = setUp()
    const [guest, host] = pair()
    guest.end()
    await settle()
    const connection = server.accept(guest)
    host.write('z')
    await expect(connection.closed).resolves.toEqual({ reason: 'unknown-service', byte: 0x7a })
  })

  test('in the middle of its replies, and no more are made', async () => {
    let made = 0
    const { connect, server } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override *receive(): Iterable<Uint8Array> {
            for (; made < 10; made++) {
              if (made === 2) void server.close()
              yield Buffer.from('x')
            }
          }
        })(connection),
    })
    const { host, connection } = connect()
    host.write('ex')
    await expect(connection.closed).resolves.toEqual({ reason: 'server-closed' })
    expect(made).toBe(2)
  })

  test.each([
    ['on request', (_host: End, connection: ServerConnection) => connection.close()],
    ['by the client', (host: End) => void host.destroy()],
  ])('in the middle of its replies, %s, and what makes them is told', async (_how, end) => {
    let over = 0
    const { connect } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override *receive(): Iterable<Uint8Array> {
            try {
              for (;;) yield Buffer.alloc(100)
            } finally {
              over++
            }
          }
        })(connection),
    })
    const { host, connection } = connect()
    host.pause()
    host.write('ex')
    await settle()
    expect(over).toBe(0)
    end(host, connection)
    await connection.closed
    expect(over).toBe(1)
  })

  test('on request, which drops what the service still works on', async () => {
    let late!: (replies: Iterable<Uint8Array>) => void
    const { connect, sessions } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override receive() {
            return new Promise<Iterable<Uint8Array>>((resolve) => {
              late = resolve
            })
          }
        })(connection),
    })
    const { host, connection, received } = connect()
    host.write('ex')
    await settle()
    await expect(connection.close()).resolves.toEqual({ reason: 'server-closed' })
    await expect(connection.close()).resolves.toEqual({ reason: 'server-closed' })
    late([Buffer.from('late')])
    await settle()
    expect(received()).toBe('hi')
    expect(sessions[0]!.closed).toBe(1)
  })
})

describe('delay', () => {
  test('runs on the clock of the server', async () => {
    const { connect, clock } = setUp({
      session: (connection) =>
        new (class extends Echo {
          override async receive(chunk: Uint8Array) {
            await connection.delay(12_200)
            return super.receive(chunk)
          }
        })(connection),
    })
    const { host, received } = connect()
    host.write('ex')
    await settle()
    await clock.advance(12_199)
    expect(received()).toBe('hi')
    await clock.advance(1)
    expect(received()).toBe('hi[x]')
    expect(clock.timers).toBe(0)
  })

  test('rejects when the connection ends first, and leaves no timer', async () => {
    let waiting!: Promise<void>
    let held!: GuestConnection
    const { connect, clock } = setUp({
      session: (connection) => {
        held = connection
        waiting = connection.delay(1_000)
        // One that nobody waits for is no unhandled rejection.
        void connection.delay(2_000)
        return new Echo(connection)
      },
    })
    const { host, connection } = connect()
    host.write('e')
    await settle()
    await connection.close()
    await expect(waiting).rejects.toThrow('connection 1: ended during a delay of 1000 ms')
    await expect(held.delay(1)).rejects.toThrow('ended')
    expect(clock.timers).toBe(0)
  })
})

describe('the server', () => {
  test('reports each connection once at either end, numbered from 1', async () => {
    const { server, connect } = setUp()
    const seen: string[] = []
    server.on('connection', ({ id, remote }) => seen.push(`+${id} ${remote}`))
    server.on('disconnect', ({ id }, { reason }) => seen.push(`-${id} ${reason}`))
    connect('a')
    const { connection } = connect('b')
    await connection.close()
    await server.close()
    expect(seen).toEqual(['+1 a', '+2 b', '-2 server-closed', '-1 server-closed'])
  })

  test('closes every stream before close() resolves; twice is once; whoever comes later is turned away', async () => {
    const { server, connect, ends } = setUp()
    const open = [connect(), connect()]
    open[0]!.host.write('e')
    await settle()
    const closing = server.close()
    expect(server.close()).toBe(closing)
    await closing
    expect(open.map(({ guest }) => guest.closed)).toEqual([true, true])
    expect(ends).toEqual(['server-closed', 'server-closed'])
    const { connection } = connect()
    await expect(connection.closed).resolves.toEqual({ reason: 'server-closed' })
  })

  test('is closed by `await using`', async () => {
    const { server, connect } = setUp()
    const { guest } = connect()
    await server[Symbol.asyncDispose]()
    expect(guest.closed).toBe(true)
  })

  test('turns away what is over the limit, and no more than that', async () => {
    const { connect } = setUp({ maxConnections: 1 })
    const first = connect()
    const second = connect()
    await expect(second.connection.closed).resolves.toEqual({ reason: 'limit' })
    await first.connection.close()
    const third = connect()
    third.host.write('e')
    await settle()
    expect(third.received()).toBe('hi')
  })

  test.each([Number.POSITIVE_INFINITY, 2 ** 31])('may wait %d ms, with no timer that would fire at once', async (ms) => {
    const timers: number[] = []
    const setTimer = (ms: number) => {
      timers.push(ms)
      return () => {}
    }
    const { connect } = setUp({ clock: { now: () => 0, setTimer }, serviceByteTimeoutMs: ms, writeTimeoutMs: ms })
    const { host } = connect()
    host.write('ex')
    await settle()
    expect(timers.filter((ms) => ms > 2 ** 31 - 1)).toEqual([])
  })

  test('refuses options that make no sense', () => {
    const service = (byte: number): GuestService => ({ byte, open: (connection) => new Echo(connection) })
    expect(() => new UpcallServer({ services: [service(256)] })).toThrow(
      'services[0].byte: must be an integer in 0 … 255, got 256',
    )
    expect(() => new UpcallServer({ services: [service(1), service(1)] })).toThrow('services[1].byte: 0x1 already belongs')
    expect(() => new UpcallServer({ services: [], serviceByteTimeoutMs: 0 })).toThrow(
      'serviceByteTimeoutMs: must be a positive number',
    )
    expect(() => new UpcallServer({ services: [], writeTimeoutMs: Number.NaN })).toThrow('writeTimeoutMs')
    expect(() => new UpcallServer({ services: [], writeTimeoutMs: '5' as never })).toThrow('writeTimeoutMs')
    expect(() => new UpcallServer({ services: [], maxConnections: -1 })).toThrow('maxConnections')
  })
})
