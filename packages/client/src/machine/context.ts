import type { Backoff } from '@upcall/foundation/backoff'
import type { Turn } from '@upcall/foundation/machine'
import type { Service } from '../service.js'
import type { Effect } from './event.js'
import type { TicketQueue } from './queue.js'

/** How reconnecting is paced. All times in milliseconds. */
export interface Pace extends Backoff {
  /** How long to go on trying since the session was last ready, or began; Infinity: without a limit. */
  readonly budgetMs: number
}

/** What a session is made with. */
export interface SessionOptions {
  readonly service: Service<unknown, unknown>
  /** The other end, for errors. */
  readonly remote: string
  readonly dialMs: number
  readonly greetingMs: number
  /** undefined: the first failure is the end. */
  readonly pace: Pace | undefined
  /** How many requests may wait besides the one under way; 'busy': one request in all. */
  readonly queue: { readonly limit: number } | 'busy'
}

/** What a session carries across its states. */
export interface Context extends Turn<Effect> {
  readonly options: SessionOptions
  /** The requests that wait to be sent, first in first out. */
  readonly queue: TicketQueue
  /** When trying ends. It means nothing while the session is ready; leaving that state sets it again. */
  budgetEnd: number
  /** Attempts since the last connection that proved itself. */
  attempts: number
  /** The last failure since the service greeted. */
  lastFailure: unknown
  /** Connections made so far; the last one's number. */
  conns: number
}
