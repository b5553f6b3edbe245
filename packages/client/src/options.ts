import type { Duplex } from 'node:stream'
import { checkFunction, checkObject, duration, finiteDuration, show } from './check.js'
import { CheckedService } from './checked-service.js'
import { type Clock, systemClock } from './clock.js'
import type { Pace, SessionOptions } from './machine/context.js'
import type { Service } from './service.js'

/**
 * One attempt to reach the guest: resolves with a stream that is past any handshake, and rejects otherwise. An error whose `retryable` is
 * false is final. When the signal aborts, the attempt has to end and leave nothing open.
 */
export type Dial = (options: { signal: AbortSignal }) => Promise<Duplex>

/** What an {@link UpcallClient} is made with. All times in milliseconds, above 0. */
export interface ClientOptions<Req, Rep> {
  dial: Dial
  service: Service<Req, Rep>
  /** The other end, for messages. Default `guest`. */
  remote?: string | undefined
  /** Default: the platform's monotonic clock. */
  clock?: Clock | undefined
  /** How many requests may wait behind the one under way (default 64), or `'busy'`: one request in all, the next is refused. */
  queue?: { limit: number } | 'busy' | undefined
  /** When to stop trying to connect, and how long to wait in between; false: the first failure is the end. */
  reconnect?: ReconnectOptions | false | undefined
  timeouts?: TimeoutOptions | undefined
}

export interface ReconnectOptions {
  /** How long to go on trying since the client was last ready, or made; Infinity: for as long as it takes. Default 30,000. */
  budgetMs?: number | undefined
  /** The least delay between two attempts. Default 10. */
  minDelayMs?: number | undefined
  /** The greatest. Delays are drawn evenly between the least and a cap that doubles with each attempt up to the greatest. Default 1,000. */
  maxDelayMs?: number | undefined
  /** Uniform in [0, 1). Default `Math.random`. */
  random?: (() => number) | undefined
}

export interface TimeoutOptions {
  /** One dial, any handshake included; Infinity: the dialer's own limit. Default 5,000. */
  dialMs?: number | undefined
  /** From the service byte to the whole greeting. Default 5,000. */
  greetingMs?: number | undefined
}

/** Checks the options and fills in the defaults. @throws TypeError or RangeError that names the option. */
export function resolveOptions<Req, Rep>(
  options: ClientOptions<Req, Rep>,
): { dial: Dial; clock: Clock; service: CheckedService; session: SessionOptions } {
  checkObject('options', options)
  const { dial, remote = 'guest', clock = systemClock, queue = { limit: 64 }, reconnect = {}, timeouts = {} } = options
  checkFunction('dial', dial, 'a function ({ signal }) => Promise<Duplex>')
  const service = new CheckedService(options.service as Service<unknown, unknown>)
  if (typeof remote !== 'string') throw new TypeError(`remote: must be a string, got ${show(remote)}`)
  checkObject('clock', clock, 'an object with now and setTimer')
  checkFunction('clock.now', clock.now)
  checkFunction('clock.setTimer', clock.setTimer)
  if (queue !== 'busy') {
    checkObject('queue', queue, "'busy' or { limit }")
    if (!Number.isInteger(queue.limit) || queue.limit < 0)
      throw new RangeError(`queue.limit: must be an integer of at least 0, got ${show(queue.limit)}`)
  }
  checkObject('timeouts', timeouts)
  const dialMs = duration('timeouts.dialMs', timeouts.dialMs, 5_000)
  const greetingMs = duration('timeouts.greetingMs', timeouts.greetingMs, 5_000)
  return { dial, clock, service, session: { service, remote, dialMs, greetingMs, pace: resolvePace(reconnect), queue } }
}

function resolvePace(reconnect: ReconnectOptions | false): Pace | undefined {
  if (reconnect === false) return undefined
  checkObject('reconnect', reconnect, 'an object or false')
  const { random = Math.random } = reconnect
  checkFunction('reconnect.random', random)
  const budgetMs = duration('reconnect.budgetMs', reconnect.budgetMs, 30_000)
  const minDelayMs = finiteDuration('reconnect.minDelayMs', reconnect.minDelayMs, 10)
  const maxDelayMs = finiteDuration('reconnect.maxDelayMs', reconnect.maxDelayMs, Math.max(1_000, minDelayMs))
  if (maxDelayMs < minDelayMs)
    throw new RangeError(`reconnect.maxDelayMs: must be at least minDelayMs (${minDelayMs}), got ${maxDelayMs}`)
  return { budgetMs, minDelayMs, maxDelayMs, random }
}
