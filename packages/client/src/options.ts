import type { Duplex } from 'node:stream'
import { checkClock, checkFunction, checkObject, checkString, duration, finiteDuration, integer } from '@upcall/foundation/check'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { CheckedService } from './checked-service.js'
import type { Pace, SessionOptions } from './machine/context.js'
import type { Service } from './service.js'

/**
 * One attempt to reach the guest. It resolves with a stream on which any handshake is done, and rejects otherwise. An error whose
 * `retryable` is false is final. When the signal aborts, the attempt has to end and leave nothing open.
 */
export type Dial = (options: { signal: AbortSignal }) => Promise<Duplex>

/** What an {@link UpcallClient} is made with. All times in milliseconds, above 0. */
export interface ClientOptions<Req, Rep> {
  dial: Dial
  service: Service<Req, Rep>
  /** The other end, for errors. Default `guest`. */
  remote?: string | undefined
  /** Default: the platform's monotonic clock. */
  clock?: Clock | undefined
  /** How many requests may wait besides the one under way (default 64), or `'busy'`: one request in all, the next one is refused. */
  queue?: { limit: number } | 'busy' | undefined
  /** When to stop trying to connect, and how long to wait between attempts; false: the first failure is the end. */
  reconnect?: ReconnectOptions | false | undefined
  timeouts?: TimeoutOptions | undefined
}

export interface ReconnectOptions {
  /** How long to go on trying since the client was last ready, or made; Infinity: without a limit. Default 30,000. */
  budgetMs?: number | undefined
  /** The least delay between two attempts. Default 10. */
  minDelayMs?: number | undefined
  /** The greatest. A delay is uniform between the least and a cap that doubles with each attempt up to the greatest. Default 1,000. */
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
  checkString('remote', remote)
  checkClock(clock)
  if (queue !== 'busy') {
    checkObject('queue', queue, "'busy' or { limit }")
    integer('queue.limit', queue.limit)
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
