import { getEventListeners, once } from 'node:events'
import { Duplex } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { answering, service } from '../testing/toy-guest.js'
import { type Dial, type Service, UpcallClient } from './index.js'

const silent = () => new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
const client = (dial: Dial) => new UpcallClient({ service, dial, reconnect: false })

describe('the client owns what its dialer delivers', () => {
  test('a stream that comes after close() is destroyed, and close() waits for it', async () => {
    const stream = silent()
    let deliver!: (stream: Duplex) => void
    const c = client(() => new Promise((resolve) => (deliver = resolve)))
    await Promise.resolve()
    const closed = c.close()
    deliver(stream)
    await closed
    expect(stream.destroyed).toBe(true)
  })

  test('a dial may reject with a value that throws when it is looked at', async () => {
    const { proxy, revoke } = Proxy.revocable(new Error('x'), {})
    revoke()
    const c = client(() => Promise.reject(proxy))
    await expect(c.ready()).rejects.toMatchObject({ code: 'UNREACHABLE', what: expect.stringContaining('cannot be shown') })
    await c.close()
  })

  test('the dial is told to end when the client closes', async () => {
    let signal: AbortSignal | undefined
    const c = client(
      (options) =>
        new Promise((_resolve, reject) => {
          signal = options.signal
          options.signal.addEventListener('abort', () => reject(options.signal.reason))
        }),
    )
    await Promise.resolve()
    await c.close()
    expect(signal?.aborted).toBe(true)
  })

  test('close() waits for a dial that begins after the listener that calls it', async () => {
    const streams: Duplex[] = []
    let second!: (stream: Duplex) => void
    const failing: Service<string, string> = { ...service, failed: () => true, needsCleanChannel: () => true }
    const c = new UpcallClient({
      service: failing,
      dial: () => (streams.length === 0 ? Promise.resolve(answering({ streams })) : new Promise((resolve) => (second = resolve))),
    })
    await c.request('fails')
    let closed: Promise<void> | undefined
    c.on('reconnect', () => {
      closed = c.close()
    })
    await expect(c.request('needs another connection')).rejects.toMatchObject({ code: 'CLOSED', outcome: 'not-sent' })
    let done = false
    void closed!.then(() => (done = true))
    await once(streams[0]!, 'close')
    await new Promise(setImmediate)
    expect(done).toBe(false)
    const late = silent()
    second(late)
    await closed
    expect(late.destroyed).toBe(true)
  })

  test('an error of the stream after close() means nothing', async () => {
    const stream = silent()
    const c = client(async () => stream)
    await once(c, 'state')
    await c.close()
    expect(() => stream.emit('error', new Error('late'))).not.toThrow()
  })
})

describe('a stream that ends by itself', () => {
  /** No timer ever ends: what is noticed is noticed without one. */
  const still = { now: () => 0, setTimer: () => () => {} }

  test('a stream that has closed when it is delivered is tried again, and close() does not wait for it', async () => {
    const gone = silent()
    gone.destroy()
    await once(gone, 'close')
    const c = new UpcallClient({ service, clock: still, dial: async () => gone })
    const [{ reason }] = await once(c, 'reconnect')
    expect(reason).toBe('disconnected')
    await c.close()
  })

  test('a stream that has ended when it is delivered is tried again at once', async () => {
    const ended = silent()
    ended.push(null)
    await once(ended.resume(), 'end')
    const c = new UpcallClient({ service, clock: still, dial: async () => ended })
    const [{ reason }] = await once(c, 'reconnect')
    expect(reason).toBe('disconnected')
    await c.close()
  })

  test('a stream that is destroyed without an error while idle is noticed', async () => {
    const streams: Duplex[] = []
    const c = new UpcallClient({ service, clock: still, dial: async () => answering({ streams }) })
    await c.ready()
    const lost = once(c, 'reconnect')
    streams[0]!.destroy()
    expect((await lost)[0].reason).toBe('disconnected')
    await c.close()
  })
})

test('what a listener does is told after what it listens to, to every listener in the same order', async () => {
  const c = new UpcallClient({ service, dial: async () => answering() })
  const told: string[][] = [[], []]
  c.on('state', ({ state }) => {
    told[0]!.push(state)
    if (state === 'ServiceConnected') void c.close()
  })
  c.on('state', ({ state }) => told[1]!.push(state))
  await once(c, 'state')
  while (c.state !== 'Closed') await new Promise(setImmediate)
  expect(told).toEqual([
    ['WaitingService', 'ServiceConnected', 'Closed'],
    ['WaitingService', 'ServiceConnected', 'Closed'],
  ])
  await c.close()
})

describe('a dialer that misbehaves', () => {
  test.each<[string, Dial]>([
    [
      'throws',
      () => {
        throw new Error('boom')
      },
    ],
    ['rejects', () => Promise.reject(new Error('boom'))],
  ])('a dialer that %s has failed', async (_name, dial) => {
    await expect(client(dial).ready()).rejects.toMatchObject({
      code: 'UNREACHABLE',
      outcome: 'not-sent',
      cause: { message: 'boom' },
    })
  })

  test('ready() that runs out of time says what stood in its way', async () => {
    let fire!: () => void
    const clock = {
      now: () => 0,
      setTimer(ms: number, fn: () => void) {
        if (ms === 77) fire = fn
        return () => {}
      },
    }
    const c = new UpcallClient({ service, clock, dial: () => Promise.reject(new Error('boom')) })
    const ready = c.ready({ timeoutMs: 77 })
    await once(c, 'reconnect')
    fire()
    await expect(ready).rejects.toMatchObject({
      code: 'TIMEOUT',
      outcome: 'not-sent',
      message: 'connect guest: not ready within 77 ms, last attempt: boom. The client goes on trying.',
      cause: { message: 'boom' },
    })
    await c.close()
  })

  test('a value that is not a stream is final', async () => {
    const c = new UpcallClient({ service, dial: async () => ({}) as Duplex })
    await expect(c.ready()).rejects.toMatchObject({
      code: 'UNREACHABLE',
      cause: { message: 'dial: must resolve with a Duplex stream' },
    })
    await c.close()
  })

  test('an error that says retryable: false is final', async () => {
    let dials = 0
    const c = new UpcallClient({
      service,
      dial: () => {
        dials++
        return Promise.reject(Object.assign(new Error('no'), { retryable: false }))
      },
    })
    await expect(c.request('x')).rejects.toMatchObject({ code: 'UNREACHABLE' })
    expect(dials).toBe(1)
    await c.close()
  })
})

describe('an unreachable guest: the first line has the address and the last reason', () => {
  const remote = 'hybrid:///run/vm.sock:219'
  const dial = () => Promise.reject(Object.assign(new Error('connect ECONNREFUSED'), { retryable: false }))
  const [last, next] = ['last attempt: connect ECONNREFUSED', 'Nothing was sent. Call reconnect() to try again.']

  test('of a request that waited, of a later request, and of ready()', async () => {
    const c = new UpcallClient({ service: { ...service, describe: (word) => `say ${word}` }, remote, dial })
    const cause = expect.objectContaining({ message: 'connect ECONNREFUSED' })
    const error = { code: 'UNREACHABLE', outcome: 'not-sent', retryable: false, subject: remote, cause }
    const [waited, ready] = await Promise.allSettled([c.request('hello'), c.ready()])
    expect(waited).toMatchObject({
      reason: { ...error, message: `say hello ${remote}: unreachable, ${last}. ${next}` },
    })
    const message = `connect ${remote}: unreachable, ${last}. Call reconnect() to try again.`
    expect(ready).toMatchObject({ reason: { ...error, message } })
    await expect(c.request('again')).rejects.toMatchObject({
      ...error,
      message: `say again ${remote}: unreachable, ${last}. ${next}`,
    })
    await expect(c.ready()).rejects.toMatchObject({ ...error, message })
    await c.close()
  })
})

test.each<[object, string]>([
  [{ dial: 1 }, 'dial: must be a function'],
  [{ service: { byte: 256 } }, 'service.byte: must be an integer from 0 to 255, got 256'],
  [{ queue: { limit: -1 } }, 'queue.limit: must be an integer of at least 0, got -1'],
  [{ timeouts: { dialMs: 0 } }, 'timeouts.dialMs: must be a number of milliseconds above 0, got 0'],
  [{ timeouts: { greetingMs: Number.NaN } }, 'timeouts.greetingMs'],
  [{ reconnect: { budgetMs: -5 } }, 'reconnect.budgetMs'],
  [{ reconnect: { minDelayMs: 50, maxDelayMs: 10 } }, 'reconnect.maxDelayMs: must be at least minDelayMs (50), got 10'],
])('%j is refused', (options, message) => {
  expect(() => new UpcallClient({ service, dial: async () => silent(), ...options } as never)).toThrow(message)
})

test('a timeout of 0 or less is refused before anything is queued', async () => {
  const c = client(async () => silent())
  await expect(c.request('x', { timeoutMs: 0 })).rejects.toThrow('timeoutMs: must be a number of milliseconds above 0')
  await expect(c.ready({ timeoutMs: -1 })).rejects.toThrow('timeoutMs')
  await c.close()
})

test.each([0, -1, Number.NaN])('a service whose replies may take %d ms is told so, and nothing is queued', async (ms) => {
  const c = new UpcallClient({ service: { ...service, replyTimeoutMs: () => ms }, dial: async () => silent() })
  await expect(c.request('x')).rejects.toThrow(`replyTimeoutMs: must be a number of milliseconds above 0, got ${ms}`)
  await c.close()
})

test('a signal that many requests share has one listener, each is aborted, and none is left', async () => {
  const c = new UpcallClient({ service, dial: () => new Promise(() => {}), timeouts: { dialMs: 1 } })
  const controller = new AbortController()
  const { signal } = controller
  const listeners = () => getEventListeners(signal, 'abort').length
  const brief = c.request('x', { signal, timeoutMs: 1 })
  const waiting = [c.ready({ signal }), ...Array.from({ length: 20 }, () => c.request('x', { signal }))]
  expect(listeners()).toBe(1)
  await expect(brief).rejects.toMatchObject({ code: 'TIMEOUT' })
  expect(listeners()).toBe(1)
  controller.abort('enough')
  const ends = await Promise.allSettled(waiting)
  expect(ends).toEqual(
    ends.map(() => ({ status: 'rejected', reason: expect.objectContaining({ code: 'ABORTED', cause: 'enough' }) })),
  )
  expect(listeners()).toBe(0)
  await c.close()
})

test('a dial that may take for ever leaves close() no timer that fires at once', async () => {
  const timers: number[] = []
  const clock = {
    now: () => 0,
    setTimer(ms: number) {
      timers.push(ms)
      return () => {}
    },
  }
  const c = new UpcallClient({ service, clock, dial: async () => silent(), timeouts: { dialMs: Number.POSITIVE_INFINITY } })
  await c.close()
  expect(timers.filter((ms) => ms > 2 ** 31 - 1)).toEqual([])
})

test('a service that cannot judge its own reply costs the request, not the process', async () => {
  const puzzled: Service<string, string> = {
    ...service,
    failed() {
      throw new TypeError('no such reply')
    },
  }
  const c = new UpcallClient({ service: puzzled, dial: async () => answering() })
  await expect(c.request('x')).rejects.toMatchObject({
    code: 'PROTOCOL',
    outcome: 'indeterminate',
    cause: new TypeError('no such reply'),
  })
  await c.close()
})
