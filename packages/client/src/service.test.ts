import { Duplex } from 'node:stream'
import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { answering, SIZE, service } from '../testing/toy-guest.js'
import { type ClientOptions, type Dial, type Service, UpcallClient } from './index.js'

// A service and a dialer come from outside, some of them without types. Whatever they give, the process lives, each request has an
// outcome, and the outcome is true.

const broken = (): never => {
  throw new TypeError('broken')
}

function open(options: Partial<Record<keyof ClientOptions<string, string>, unknown>> = {}) {
  const written: Uint8Array[] = []
  const client = new UpcallClient<string, string>({ service, dial: async () => answering({ written }), ...options } as never)
  onTestFinished(() => client.close())
  /** The messages that were written, without the service byte. */
  const sent = () => written.filter(({ length }) => length > 1)
  return { client, sent }
}

const untilAborted: Dial = ({ signal }) =>
  new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

const unhandled: unknown[] = []
const note = (error: unknown) => unhandled.push(error)
beforeEach(() => {
  unhandled.length = 0
  process.on('unhandledRejection', note)
})
afterEach(async () => {
  await new Promise(setImmediate)
  process.off('unhandledRejection', note)
  expect(unhandled).toEqual([])
})

describe('a service is checked when it is given', () => {
  test.each<[object, string]>([
    [{ messageSize: 0 }, 'service.messageSize: must be an integer from 1 to 1073741824, got 0'],
    [{ messageSize: 1.5 }, 'service.messageSize'],
    [{ messageSize: 2 ** 31 }, 'service.messageSize'],
    [{ messageSize: '8' }, 'service.messageSize: must be an integer from 1 to 1073741824, got "8"'],
    [{ byte: undefined }, 'service.byte: must be an integer from 0 to 255, got undefined'],
    [{ byte: '1' }, 'service.byte'],
    [{ checkGreeting: undefined }, 'service.checkGreeting: must be a function, got undefined'],
    [{ encode: undefined }, 'service.encode: must be a function'],
    [{ decode: null }, 'service.decode: must be a function, got null'],
    [{ failed: undefined }, 'service.failed: must be a function'],
    [{ replyTimeoutMs: 1_000 }, 'service.replyTimeoutMs: must be a function, got 1000'],
    [{ needsCleanChannel: true }, 'service.needsCleanChannel: must be a function or left out, got true'],
    [{ describe: 'a request' }, 'service.describe: must be a function or left out'],
  ])('%j', (wrong, message) => {
    expect(() => open({ service: { ...service, ...wrong } })).toThrow(message)
  })

  test.each([undefined, null, 5])('%j is not a service', (value) => {
    expect(() => open({ service: value })).toThrow(`service: must be a Service object, got ${value}`)
  })

  test('what it is then stays: a byte or a size that changes later changes nothing', async () => {
    const changing = { ...service, messageSize: SIZE as number }
    const { client, sent } = open({ service: changing })
    changing.messageSize = 0
    await client.request('x')
    expect(sent().map(({ length }) => length)).toEqual([SIZE])
  })

  test('its functions are called as its own', async () => {
    class Counting implements Service<string, string> {
      readonly byte = 1
      readonly messageSize = SIZE
      #requests = 0
      checkGreeting() {}
      encode(_request: string, into: Uint8Array) {
        this.#requests++
        return into
      }
      decode() {
        return `reply ${this.#requests}`
      }
      failed() {
        return this.#requests === 0
      }
      replyTimeoutMs() {
        return 1_000 + this.#requests
      }
      needsCleanChannel() {
        return this.#requests === 0
      }
      describe() {
        return `request ${this.#requests}`
      }
    }
    await expect(open({ service: new Counting() }).client.request('x')).resolves.toBe('reply 1')
  })
})

describe('a request that the service cannot prepare is rejected before it is queued', () => {
  test.each<[string, object, string]>([
    ['no bytes', { encode: () => undefined }, 'encode: must return a Uint8Array of 4 bytes, got undefined'],
    ['too few bytes', { encode: () => new Uint8Array(3) }, 'encode: must return a Uint8Array of 4 bytes, got 3 bytes'],
    ['too many bytes', { encode: () => new Uint8Array(5) }, 'encode: must return a Uint8Array of 4 bytes, got 5 bytes'],
    ['a promise of bytes', { encode: async (_r: string, into: Uint8Array) => into }, 'encode: must not return a promise'],
    ['a promise that fails', { encode: async () => broken() }, 'encode: must not return a promise'],
    ['no time', { replyTimeoutMs: () => undefined }, 'replyTimeoutMs: must be a number of milliseconds above 0, got undefined'],
    ['no number', { replyTimeoutMs: () => Number.NaN }, 'got NaN'],
    ['a negative time', { replyTimeoutMs: () => -1 }, 'got -1'],
    ['a time without end', { replyTimeoutMs: () => Number.POSITIVE_INFINITY }, 'got Infinity'],
    ['a time that fails', { replyTimeoutMs: broken }, 'replyTimeoutMs: broken'],
    ['no words', { describe: () => undefined }, 'describe: must return a string, got undefined'],
    ['words that fail', { describe: broken }, 'describe: broken'],
    ['no yes or no', { needsCleanChannel: () => 1 }, 'needsCleanChannel: must return true or false, got 1'],
    ['a yes or no that fails', { needsCleanChannel: broken }, 'needsCleanChannel: broken'],
    [
      'a promise of yes or no',
      { needsCleanChannel: async () => broken() },
      'needsCleanChannel: must return true or false, got a promise',
    ],
  ])('%s', async (_what, wrong, message) => {
    const { client, sent } = open({ service: { ...service, ...wrong } })
    await client.ready()
    await expect(client.request('x')).rejects.toMatchObject({
      code: 'CALLBACK',
      outcome: 'not-sent',
      message: expect.stringContaining(message),
      cause: expect.any(Error),
    })
    expect(client.state).toBe('ServiceConnected')
    expect(sent()).toEqual([])
  })

  test('what encode throws is what an invalid request is rejected with', async () => {
    const invalid = new RangeError('size: too small')
    const { client, sent } = open({
      service: {
        ...service,
        encode() {
          throw invalid
        },
      },
    })
    await expect(client.request('x')).rejects.toBe(invalid)
    expect(sent()).toEqual([])
  })

  test.each([
    ['Uint8Array', new Uint8Array(SIZE)],
    ['Buffer', Buffer.alloc(SIZE)],
  ])('one buffer for all requests is as good as one for each: a %s', async (_kind, mine) => {
    const { client, sent } = open({
      service: {
        ...service,
        encode(request: string) {
          mine[0] = request.charCodeAt(0)
          return mine
        },
      },
    })
    await Promise.all([client.request('a'), client.request('b')])
    expect(sent().map(([first]) => first)).toEqual([0x61, 0x62])
  })
})

describe('a reply that the service cannot read costs the request, not the process', () => {
  test.each<[string, object, string]>([
    ['decode throws', { decode: broken }, 'broken'],
    ['decode returns nothing', { decode: () => undefined }, 'decode: must return the reply or throw, got undefined'],
    ['decode promises', { decode: async () => broken() }, 'decode: must not return a promise'],
    ['failed throws', { failed: broken }, 'broken'],
    ['failed says nothing', { failed: () => undefined }, 'failed: must return true or false, got undefined'],
    ['failed promises', { failed: async () => broken() }, 'failed: must not return a promise'],
  ])('%s', async (_what, wrong, message) => {
    const { client, sent } = open({ service: { ...service, ...wrong } })
    await expect(client.request('x')).rejects.toMatchObject({
      name: 'ProtocolError',
      outcome: 'indeterminate',
      cause: { name: 'TypeError', message },
    })
    expect(sent()).toHaveLength(1)
  })

  test('a request that waits for its turn is not affected', async () => {
    let replies = 0
    const { client } = open({ service: { ...service, decode: () => (replies++ === 0 ? undefined : 'reply') } })
    const both = [client.request('x'), client.request('y')]
    await expect(both[0]).rejects.toMatchObject({ outcome: 'indeterminate' })
    await expect(both[1]).resolves.toBe('reply')
  })

  test('a service that closes the client while it reads has closed it', async () => {
    const { client } = open({
      service: {
        ...service,
        decode() {
          void client.close()
          return 'reply'
        },
      },
    })
    await expect(client.request('x')).resolves.toBe('reply')
    expect(client.state).toBe('Closed')
    await expect(client.request('y')).rejects.toMatchObject({ code: 'CLOSED', outcome: 'not-sent' })
  })
})

test.each<[string, object]>([
  ['throws', { checkGreeting: broken }],
  ['promises', { checkGreeting: async () => broken() }],
])('a greeting whose check %s is refused', async (_what, wrong) => {
  const { client, sent } = open({ service: { ...service, ...wrong }, reconnect: false })
  await expect(client.request('x')).rejects.toMatchObject({
    code: 'UNREACHABLE',
    outcome: 'not-sent',
    cause: { name: 'ProtocolError', cause: { name: 'TypeError' } },
  })
  expect(sent()).toEqual([])
})

describe('a dialer that delivers', () => {
  test.each<[string, unknown]>([
    ['something with a pipe', { pipe() {} }],
    ['something to write to only', { write() {}, on() {}, once() {} }],
    ['what cannot be looked at', new Proxy({}, { get: (_target, key) => (key === 'then' ? undefined : broken()) })],
  ])('%s has delivered no stream, and that is final', async (_what, value) => {
    const { client } = open({ dial: async () => value })
    await expect(client.ready()).rejects.toMatchObject({
      code: 'UNREACHABLE',
      cause: { message: 'dial: must resolve with a Duplex stream' },
    })
  })

  test.each<[string, (stream: Duplex) => Duplex]>([
    ['decodes text', (stream) => stream.setEncoding('utf8')],
    [
      'gives objects',
      () =>
        new Duplex({
          readableObjectMode: true,
          read() {
            this.push({ an: 'object' })
          },
          write: (_chunk, _encoding, done) => done(),
        }),
    ],
  ])('a stream that %s is told so', async (_what, change) => {
    const { client } = open({ dial: async () => change(answering()), reconnect: false })
    await expect(client.ready()).rejects.toMatchObject({
      code: 'UNREACHABLE',
      outcome: 'not-sent',
      cause: { cause: { name: 'TypeError', message: expect.stringContaining('dial: the stream must give bytes') } },
    })
  })

  test.each(['on', 'once', 'resume'] as const)('a stream whose %s() throws has failed', async (name) => {
    const stream = Object.assign(answering(), { [name]: broken })
    const { client } = open({ dial: async () => stream, reconnect: false })
    const error = await client.ready().catch((error: unknown) => error)
    expect(error).toMatchObject({ code: 'UNREACHABLE', outcome: 'not-sent' })
    expect(inspect(error)).toContain('broken')
    expect(stream.destroyed).toBe(true)
  })

  test('after an error that cannot be inspected, another attempt is made', async () => {
    let dials = 0
    const failing = Object.defineProperty(new Error('gone'), 'retryable', { get: broken })
    const { client } = open({ dial: async () => (dials++ === 0 ? Promise.reject(failing) : answering()) })
    await expect(client.request('x')).resolves.toBe('reply')
  })

  test('a stream that stands still gets it going', async () => {
    const { client } = open({ dial: async () => answering().pause() })
    await expect(client.request('x')).resolves.toBe('reply')
  })

  test('a stream that throws when it is written to has failed', async () => {
    let writes = 0
    const { client } = open({
      reconnect: false,
      dial: async () => {
        const stream = answering()
        const write = stream.write.bind(stream) as (chunk: Uint8Array) => boolean
        stream.write = ((chunk: Uint8Array) => (writes++ === 0 ? write(chunk) : broken())) as Duplex['write']
        return stream
      },
    })
    await expect(client.request('x')).rejects.toMatchObject({
      code: 'DISCONNECTED',
      outcome: 'indeterminate',
      cause: { message: 'broken' },
    })
  })
})

describe('options are checked when they are given', () => {
  test.each<[object, string]>([
    [{ dial: undefined }, 'dial: must be a function ({ signal }) => Promise<Duplex>, got undefined'],
    [{ clock: {} }, 'clock.now: must be a function, got undefined'],
    [{ clock: { now: () => 0 } }, 'clock.setTimer: must be a function, got undefined'],
    [{ clock: null }, 'clock: must be an object with now and setTimer, got null'],
    [{ remote: 5 }, 'remote: must be a string, got 5'],
    [{ queue: null }, "queue: must be 'busy' or { limit }, got null"],
    [{ queue: 'full' }, `queue: must be 'busy' or { limit }, got "full"`],
    [{ queue: { limit: Number.POSITIVE_INFINITY } }, 'queue.limit: must be an integer of at least 0, got Infinity'],
    [{ queue: { limit: Number.NaN } }, 'queue.limit'],
    [{ timeouts: 5_000 }, 'timeouts: must be an object, got 5000'],
    [{ timeouts: { dialMs: '5' } }, 'timeouts.dialMs: must be a number of milliseconds above 0, got "5"'],
    [{ timeouts: { greetingMs: null } }, 'timeouts.greetingMs'],
    [{ reconnect: true }, 'reconnect: must be an object or false, got true'],
    [{ reconnect: null }, 'reconnect: must be an object or false, got null'],
    [{ reconnect: { budgetMs: Number.NaN } }, 'reconnect.budgetMs'],
    [{ reconnect: { minDelayMs: Number.POSITIVE_INFINITY } }, 'reconnect.minDelayMs: must be a finite number of milliseconds'],
    [{ reconnect: { maxDelayMs: Number.POSITIVE_INFINITY } }, 'reconnect.maxDelayMs: must be a finite number of milliseconds'],
    [{ reconnect: { random: 0.5 } }, 'reconnect.random: must be a function, got 0.5'],
  ])('%j', (wrong, message) => {
    expect(() => open(wrong)).toThrow(message)
  })

  test.each([undefined, null, 'unix:/x'])('%j instead of options', (options) => {
    expect(() => new UpcallClient(options as never)).toThrow(/^options: must be an object/)
  })

  test.each([undefined, Number.NaN, -1, 2, Number.POSITIVE_INFINITY, Symbol('half')])(
    'a random number that is %s ends the attempts',
    async (n) => {
      const { client } = open({ dial: () => Promise.reject(new Error('no guest')), reconnect: { random: () => n } })
      await expect(client.request('x')).rejects.toMatchObject({
        code: 'UNREACHABLE',
        outcome: 'not-sent',
        cause: { name: 'RangeError', message: `random: must return a number from 0 to 1, got ${String(n)}` },
      })
    },
  )

  test('a random number that fails ends the attempts', async () => {
    const { client } = open({ dial: () => Promise.reject(new Error('no guest')), reconnect: { random: broken } })
    await expect(client.ready()).rejects.toMatchObject({ code: 'UNREACHABLE', cause: { message: 'broken' } })
  })
})

describe('what a call is given is checked', () => {
  test.each<[unknown, string]>([
    [null, 'options: must be an object, got null'],
    [5, 'options: must be an object, got 5'],
    [{ signal: null }, 'signal: must be an AbortSignal, got null'],
    [{ signal: {} }, 'signal: must be an AbortSignal'],
    [{ signal: new AbortController() }, 'signal: must be an AbortSignal'],
    [{ timeoutMs: Number.NaN }, 'timeoutMs'],
    [{ timeoutMs: '5' }, 'timeoutMs'],
  ])('%j', async (options, message) => {
    const { client, sent } = open()
    await client.ready()
    for (let n = 0; n < 2; n++) {
      await expect(client.request('x', options as never)).rejects.toThrow(message)
      await expect(client.ready(options as never)).rejects.toThrow(message)
    }
    expect(sent()).toEqual([])
  })

  test('ready() that may take longer than a timer does not end with the first one', async () => {
    const timers: { ms: number; fire: () => void }[] = []
    let now = 0
    const endless = Number.POSITIVE_INFINITY
    const clock = {
      now: () => now,
      setTimer(ms: number, fire: () => void) {
        timers.push({ ms, fire })
        return () => {}
      },
    }
    const { client } = open({ clock, dial: untilAborted, timeouts: { dialMs: endless }, reconnect: { budgetMs: endless } })
    const ready = client.ready({ timeoutMs: 2 ** 31 })
    const over = vi.fn()
    ready.catch(over)
    expect(timers.map(({ ms }) => ms)).toEqual([2 ** 31 - 1])
    now = 2 ** 31 - 1
    timers[0]!.fire()
    await Promise.resolve()
    expect(over).not.toHaveBeenCalled()
    expect(timers[1]!.ms).toBe(1)
    now += 1
    timers[1]!.fire()
    await expect(ready).rejects.toMatchObject({ code: 'TIMEOUT' })
  })
})
