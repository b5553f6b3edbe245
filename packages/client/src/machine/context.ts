import type { Service } from '../service.js'
import type { TicketQueue } from './queue.js'
import type { Effect } from './session.js'

/** How reconnecting is paced; all in milliseconds. */
export interface Pace {
  /** How long to go on trying since the session was last ready (or began). */
  readonly budgetMs: number
  readonly minDelayMs: number
  readonly maxDelayMs: number
  /** Uniform in [0, 1). */
  readonly random: () => number
}

/** What a session is made with. */
export interface SessionOptions {
  readonly service: Service<unknown, unknown>
  /** The other end, for messages. */
  readonly remote: string
  readonly dialMs: number
  readonly greetingMs: number
  /** undefined: the first failure is the end. */
  readonly pace: Pace | undefined
  /** How many requests may wait, behind the one under way; 'busy': one request in all. */
  readonly queue: { readonly limit: number } | 'busy'
}

/** What a session carries across its states. */
export interface Context {
  readonly options: SessionOptions
  /** The time of the event that is being handled. */
  now: number
  /** What waits to be sent, first in first out. */
  readonly queue: TicketQueue
  /** When trying ends. It means nothing while the session is ready; leaving that state sets it anew. */
  budgetEnd: number
  /** Attempts since the last connection that proved itself. */
  attempts: number
  /** The last failure, for whoever is told that the budget is spent. */
  lastFailure: unknown
  /** Connections made so far; the last one's number. */
  conns: number
  effects: Effect[]
}

/**
 * The delay before attempt number `attempt` (from 1): uniform between the least and a cap that doubles up to the greatest.
 * @throws What `random` throws; RangeError if it gives no number from 0 to 1.
 */
export function backoff(pace: Pace, attempt: number): number {
  const cap = Math.min(pace.maxDelayMs, pace.minDelayMs * 2 ** attempt)
  const random = pace.random()
  // A delay that is no number would be waited for without a timer, for ever.
  if (typeof random !== 'number' || !(random >= 0 && random <= 1))
    throw new RangeError(`reconnect.random: must return a number from 0 to 1, got ${String(random)}`)
  return pace.minDelayMs + random * Math.max(0, cap - pace.minDelayMs)
}
