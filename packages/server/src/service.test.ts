import { channel } from 'node:diagnostics_channel'
import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { printed } from '@upcall/foundation/testing/printed'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { type GuestConnection, type GuestService, type GuestSession, UpcallServer } from './index.js'

// Services and streams come from outside, some of them without types. The connection bears what they do wrong, not the process, and the
// server's owner learns of it.

vi.mock('node:util', async (original) => (await import('@upcall/foundation/testing/printed')).catchDebug(original))
/** What is printed of faults. */
const faults = () => printed.filter((line) => line.includes('the service failed'))

const unhandled: unknown[] = []
const note = (error: unknown) => unhandled.push(error)
beforeEach(() => {
  unhandled.length = 0
  printed.splice(0)
  process.on('unhandledRejection', note)
})
afterEach(async () => {
  await settle()
  process.off('unhandledRejection', note)
  expect(unhandled).toEqual([])
})

async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await turn()
}

function faultOfTheService(): never {
  throw new TypeError('broken')
}

const session: GuestSession = { greeting: Buffer.from('hi'), receive: () => [Buffer.from('reply')], close() {} }
const service: GuestService = { byte: 0x65, open: () => session }

/** A server with one service, and one connection to it that has asked for it. */
function connect(wrong: object, options: object = {}) {
  const server = new UpcallServer({ services: [{ ...service, ...wrong }], ...options } as never)
  onTestFinished(() => server.close())
  const written: string[] = []
  const stream = new Duplex({
    read() {},
    write(chunk, _encoding, done) {
      written.push(chunk.toString())
      done()
    },
  })
  const connection = server.accept(stream)
  stream.push('ex')
  return { server, stream, connection, written }
}

const never = () => new Promise<never>(() => {})
const refusing = async () => faultOfTheService()

describe('services are checked when they are given', () => {
  test.each<[unknown, string]>([
    [undefined, 'services: must be an iterable of services, got undefined'],
    [5, 'services: must be an iterable of services, got 5'],
    [service, 'services: must be an iterable of services'],
    [[service, undefined], 'services[1]: must be a GuestService object, got undefined'],
    [[{ ...service, byte: -1 }], 'services[0].byte: must be an integer from 0 to 255, got -1'],
    [[{ ...service, byte: '1' }], 'services[0].byte: must be an integer from 0 to 255, got "1"'],
    [[service, service], 'services[1].byte: must be free, but 0x65 belongs to another service'],
    [[{ ...service, open: undefined }], 'services[0].open: must be a function, got undefined'],
    [[{ ...service, available: true }], 'services[0].available: must be a function or left out, got true'],
  ])('%j', (services, message) => {
    expect(() => new UpcallServer({ services } as never)).toThrow(message)
  })

  test('so are the other options', () => {
    const make = (options: object | undefined | null) => () =>
      new UpcallServer((options && { services: [], ...options }) as never)
    expect(make(undefined)).toThrow('options: must be an object, got undefined')
    expect(make(null)).toThrow('options: must be an object, got null')
    expect(make({ clock: { now: () => 0 } })).toThrow('clock.setTimer: must be a function, got undefined')
    expect(make({ clock: null })).toThrow('clock: must be an object with now and setTimer, got null')
    expect(make({ maxConnections: 1.5 })).toThrow('maxConnections: must be an integer above 0 or Infinity, got 1.5')
    expect(make({ maxConnections: Number.NaN })).toThrow('maxConnections')
    expect(make({ serviceByteTimeoutMs: null })).toThrow(
      'serviceByteTimeoutMs: must be a number of milliseconds above 0, got null',
    )
    expect(make({ maxConnections: Number.POSITIVE_INFINITY })).not.toThrow()
  })

  test('so is what accept() is given, and a wrong value makes no connection', () => {
    const server = new UpcallServer({ services: [service] })
    for (const value of [undefined, null, 5, {}, { pipe() {} }])
      expect(() => server.accept(value as never)).toThrow('stream: must be a Duplex stream')
    const stream = new Duplex({ read() {}, write() {} })
    expect(() => server.accept(stream, null as never)).toThrow('options: must be an object, got null')
    expect(() => server.accept(stream, { remote: 5 as never })).toThrow('remote: must be a string, got 5')
    expect(server.connections.size).toBe(0)
    expect(server.accept(stream).id).toBe(1)
    return server.close()
  })
})

describe('the connection ends, and says why, when a service', () => {
  test.each<[string, object, string]>([
    ['opens nothing', { open: () => undefined }, 'open: must return a session, got undefined'],
    ['opens later', { open: async () => session }, 'open: must not return a promise'],
    ['opens later and fails', { open: refusing }, 'open: must not return a promise'],
    ['has no greeting', { open: () => ({ ...session, greeting: undefined }) }, 'greeting: must be a Uint8Array, got undefined'],
    ['cannot receive', { open: () => ({ ...session, receive: undefined }) }, 'receive: must be a function, got undefined'],
    ['cannot close', { open: () => ({ ...session, close: undefined }) }, 'close: must be a function, got undefined'],
    ['is neither there nor not', { available: () => undefined }, 'available: must return true or false, got undefined'],
    ['is there later', { available: async () => true }, 'available: must return true or false, got a promise'],
    ['cannot say whether it is there', { available: refusing }, 'available: must return true or false, got a promise'],
    ['cannot be asked whether it is there', { available: faultOfTheService }, 'broken'],
    [
      'gives an iterator that gives nothing',
      { open: () => ({ ...session, receive: () => ({ [Symbol.iterator]: () => ({ next() {} }) }) }) },
      'reply: an iterator must return { done, value }, got undefined',
    ],
    [
      'gives an iterator that is not an object',
      { open: () => ({ ...session, receive: () => ({ [Symbol.iterator]() {} }) }) },
      'receive: must return an iterable of replies',
    ],
    [
      'gives replies later, each of them',
      { open: () => ({ ...session, receive: () => ({ [Symbol.iterator]: () => ({ next: refusing }) }) }) },
      'reply: an iterator must return { done, value }, got a promise',
    ],
    [
      'gives a promise that throws',
      // biome-ignore lint/suspicious/noThenProperty: it is what the test is about
      { open: () => ({ ...session, receive: () => ({ then: faultOfTheService }) }) },
      'broken',
    ],
    [
      'gives what cannot be looked at',
      { open: () => ({ ...session, receive: () => Object.defineProperty({}, 'then', { get: faultOfTheService }) }) },
      'broken',
    ],
    [
      'gives replies that cannot be looked at',
      { open: () => ({ ...session, receive: () => Object.defineProperty({}, Symbol.iterator, { get: faultOfTheService }) }) },
      'broken',
    ],
    [
      'gives replies later that cannot be looked at',
      {
        open: () => ({ ...session, receive: async () => Object.defineProperty({}, Symbol.iterator, { get: faultOfTheService }) }),
      },
      'broken',
    ],
    ['fails as it closes', { open: () => ({ ...session, receive: faultOfTheService, close: faultOfTheService }) }, 'broken'],
  ])('%s', async (_what, wrong, message) => {
    const { connection, server } = connect(wrong)
    await expect(connection.closed).resolves.toMatchObject({
      reason: 'service-error',
      error: { name: 'TypeError', message: expect.stringContaining(message) },
    })
    expect(server.connections.size).toBe(0)
  })

  test('cannot be let go of twice: what was opened is closed once, whatever was wrong with it', async () => {
    const close = vi.fn()
    const { connection } = connect({ open: () => ({ ...session, greeting: 'hi', close }) })
    await connection.closed
    expect(close).toHaveBeenCalledTimes(1)
  })

  test('makes replies by what fails, and fails later as it is stopped, which is not an unhandled rejection', async () => {
    const replies = { next: faultOfTheService, return: refusing }
    const { connection, stream } = connect({
      open: () => ({ ...session, receive: () => ({ [Symbol.iterator]: () => replies }) }),
    })
    stream.push('x')
    await expect(connection.closed).resolves.toMatchObject({ reason: 'service-error' })
    await settle()
  })

  test('makes a reply that can be looked at once only, which is then its own fault and not that of the stream', async () => {
    let looks = 0
    const next = () => Object.defineProperty({}, 'value', { get: () => (looks++ === 0 ? Buffer.from('x') : faultOfTheService()) })
    const { connection, written } = connect({
      open: () => ({ ...session, receive: () => ({ [Symbol.iterator]: () => ({ next }) }) }),
    })
    await expect(connection.closed).resolves.toMatchObject({ reason: 'service-error', error: { message: 'broken' } })
    expect(written).toEqual(['hi', 'x'])
  })

  test('closes by a promise that fails, which is printed and is not an unhandled rejection', async () => {
    const { connection, stream } = connect({ open: () => ({ ...session, close: refusing }) })
    await settle()
    stream.push(null)
    await expect(connection.closed).resolves.toEqual({ reason: 'client' })
    await settle()
    expect(printed.join()).toContain('broken')
  })
})

test.each<[string, object]>([
  ['available', { available: faultOfTheService }],
  ['open', { open: faultOfTheService }],
  ['receive', { open: () => ({ ...session, receive: faultOfTheService }) }],
  ['receive', { open: () => ({ ...session, receive: refusing }) }],
  [
    'reply',
    {
      open: () => ({
        ...session,
        *receive() {
          yield Buffer.from('part')
          faultOfTheService()
        },
      }),
    },
  ],
  ['close', { open: () => ({ ...session, close: faultOfTheService }) }],
])('a fault of a service in %s is printed with its stack, published and told to the listener', async (where, wrong) => {
  const published: object[] = []
  const listen = (message: unknown) => void published.push(message as object)
  const diagnostics = channel('upcall:server')
  diagnostics.subscribe(listen)
  onTestFinished(() => void diagnostics.unsubscribe(listen))
  const { connection, server, stream } = connect(wrong)
  const told = vi.fn()
  server.on('disconnect', told)
  await settle()
  stream.push(null)
  const end = await connection.closed
  expect(end).toEqual({ reason: 'service-error', error: new TypeError('broken') })
  await settle()
  expect(told).toHaveBeenCalledWith(connection, end)
  expect(published.filter((message) => 'where' in message)).toEqual([
    { server, connection, service: 0x65, where, error: new TypeError('broken') },
  ])
  expect(faults()).toEqual([expect.stringMatching(/^upcall-server: .*TypeError: broken\s+at .*faultOfTheService/s)])
})

test('what fails after the end of its connection is printed, and no more than that', async () => {
  let fail!: (error: Error) => void
  const receive = () => new Promise<never>((_resolve, reject) => (fail = reject))
  const { connection } = connect({ open: () => ({ ...session, receive }) })
  await settle()
  await expect(connection.close()).resolves.toEqual({ reason: 'server-closed' })
  expect(faults()).toEqual([])
  fail(new Error('too late'))
  await settle()
  expect(faults()).toEqual([expect.stringContaining('too late')])
})

test('a stream that gives text has failed', async () => {
  const server = new UpcallServer({ services: [service] })
  onTestFinished(() => server.close())
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() }).setEncoding('latin1')
  const connection = server.accept(stream)
  stream.push('ex')
  await expect(connection.closed).resolves.toMatchObject({
    reason: 'stream-error',
    error: { name: 'TypeError', message: expect.stringContaining('must deliver bytes') },
  })
})

test('a stream that throws when it is written to has failed', async () => {
  const server = new UpcallServer({ services: [service] })
  onTestFinished(() => server.close())
  const stream = Object.assign(new Duplex({ read() {} }), { write: faultOfTheService })
  const connection = server.accept(stream)
  stream.push('e')
  await expect(connection.closed).resolves.toEqual({ reason: 'stream-error', error: new TypeError('broken') })
})

describe('a delay', () => {
  test.each([undefined, Number.NaN, -1, '5', 2 ** 31, Number.POSITIVE_INFINITY])(
    'of %s ms is refused, by a rejection',
    async (ms) => {
      let opened!: GuestConnection
      connect({
        open(connection: GuestConnection) {
          opened = connection
          return { ...session, receive: never }
        },
      })
      await settle()
      await expect(opened.delay(ms as never)).rejects.toThrow(/^ms: must be a number of milliseconds from 0 to 2147483647, got /)
    },
  )
})

describe('a connection whose service never answers', () => {
  test('is let go of when its stream closes', async () => {
    const close = vi.fn()
    const { connection, stream } = connect({ open: () => ({ ...session, receive: never, close }) })
    await settle()
    stream.destroy()
    await expect(connection.closed).resolves.toEqual({ reason: 'client' })
    expect(close).toHaveBeenCalledTimes(1)
  })
})
