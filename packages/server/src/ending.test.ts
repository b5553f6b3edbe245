import { Duplex } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { Echo, type End, pair, replying, settle, setUp } from '../testing/rig.js'
import type { ServerConnection } from './connection.js'
import type { GuestConnection, GuestService, GuestSession } from './service.js'

function failing(message: string): never {
  throw new TypeError(message)
}

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
    const { connect, clock, advance, ends } = setUp()
    const { state } = connect()
    await advance(9_999)
    expect(ends).toEqual([])
    await advance(1)
    expect(ends).toEqual(['service-byte-timeout'])
    expect(state.closed).toBe(true)
    expect(clock.pending).toBe(0)
  })

  test('not 10 s after the service byte', async () => {
    const { connect, clock, advance, ends } = setUp()
    const { host } = connect()
    host.write('e')
    await settle()
    expect(clock.pending).toBe(0)
    await advance(1_000_000)
    expect(ends).toEqual([])
  })

  test('when the client leaves its replies unread for 30 s', async () => {
    const { connect, advance, ends } = setUp({
      session: replying(() => Array.from({ length: 100 }, () => Buffer.alloc(64))),
    })
    const { host } = connect()
    host.pause()
    host.write('ex')
    await settle()
    await advance(29_999)
    expect(ends).toEqual([])
    // Each reply has 30 s of its own.
    // Node 26 reads a chunk at a time; earlier versions read all that there is.
    for (let read = 0; read < 64; ) read += (host.read() as Buffer).length
    await settle()
    await advance(29_999)
    expect(ends).toEqual([])
    await advance(1)
    expect(ends).toEqual(['write-timeout'])
  })

  const fail = (): never => {
    throw new Error('no')
  }
  test.each<[string, (connection: GuestConnection) => GuestSession]>([
    ['open', fail],
    ['receive', replying(fail)],
    ['a promise', replying(() => Promise.reject(new Error('no')))],
    [
      'a reply',
      replying(function* () {
        yield Buffer.from('part')
        fail()
      }),
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
    ['no replies', { receive: () => undefined }, 'receive: must return an iterable of replies, got undefined'],
    ['a promise of none', { receive: async () => null }, 'receive: must return an iterable of replies, got null'],
    ['a text', { receive: () => 'text' }, 'receive: must return an iterable of replies, got "text"'],
    [
      'what cannot be iterated',
      { receive: () => ({ [Symbol.iterator]: 5 }) },
      'receive: must return an iterable of replies, got an object',
    ],
    ['what cannot begin', { receive: () => ({ [Symbol.iterator]: () => failing('no beginning') }) }, 'no beginning'],
    ['a reply that is not bytes', { receive: () => [Buffer.from('part'), 'text'] }, 'reply: must be a Uint8Array, got "text"'],
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
      session: replying(function* () {
        for (; made < 10; made++) {
          if (made === 2) void server.close()
          yield Buffer.from('x')
        }
      }),
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
      session: replying(function* () {
        try {
          for (;;) yield Buffer.alloc(100)
        } finally {
          over++
        }
      }),
    })
    const { host, connection } = connect()
    host.pause()
    host.write('ex')
    await settle()
    expect(over).toBe(0)
    void end(host, connection)
    await connection.closed
    expect(over).toBe(1)
  })

  test('on request, which drops what the service still works on', async () => {
    let late!: (replies: Iterable<Uint8Array>) => void
    const { connect, sessions } = setUp({
      session: replying(() => new Promise((resolve) => (late = resolve))),
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

describe('bytes that come when nothing is read any more', () => {
  /** A stream whose writable half never finishes, so that its connection stays in its end. */
  const unfinished = () => new Duplex({ read() {}, write: (_chunk, _encoding, done) => done(), final() {} })

  test('after the service byte came too late are not read', async () => {
    const { server, advance, ends, sessions } = setUp()
    const stream = unfinished()
    server.accept(stream)
    await advance(10_000)
    expect(() => stream.push('e')).not.toThrow()
    await settle()
    await advance(60_000)
    expect([ends, sessions, stream.destroyed]).toEqual([['service-byte-timeout'], [], true])
  })
})
