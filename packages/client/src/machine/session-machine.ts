import { IllegalEventError, transition } from '@upcall/foundation/machine'
import type { Context, SessionOptions } from './context.js'
import type { Effect, OutsideEvent, SessionEvent } from './event.js'
import { TicketQueue } from './queue.js'
import { connOf, type Failure, type Kind, type Session, type StateName, stateNames } from './state.js'
import { expire, table } from './table.js'

/**
 * The session as a pure machine: events and the time go in, effects come out. It owns no socket, timer or promise, and reads no clock.
 * All its rules are in table.ts.
 */
export class SessionMachine {
  #session: Session
  readonly #context: Context

  /** Begins due: the first `wake` dials. */
  constructor(options: SessionOptions, now: number) {
    const budgetEnd = options.pace === undefined ? Number.POSITIVE_INFINITY : now + options.pace.budgetMs
    this.#context = {
      options,
      now,
      queue: new TicketQueue(),
      budgetEnd,
      attempts: 0,
      lastFailure: undefined,
      conns: 0,
      effects: [],
    }
    this.#session = { kind: 'Due', at: now }
  }

  get state(): StateName {
    return stateNames[this.#session.kind]
  }

  /** The state as the table names it. */
  get kind(): Kind {
    return this.#session.kind
  }

  /** What ended the attempts, in ReconnectError; otherwise the last failure since the service greeted. */
  get cause(): unknown {
    return this.failure === undefined ? this.#context.lastFailure : this.failure.cause
  }

  /** Why the session gave up, in ReconnectError; undefined in all other states. */
  get failure(): Failure | undefined {
    return this.#session.kind === 'Failed' ? this.#session.failure : undefined
  }

  /** How many requests wait to be sent, without the one under way. */
  get queued(): number {
    return this.#context.queue.length
  }

  /**
   * Handles one event.
   *
   * @param now - Milliseconds, never less than at the event before.
   * @returns What the driver has to do, in order.
   * @throws IllegalEventError if the event cannot happen in this state. The session is not changed then.
   */
  step(event: OutsideEvent, now: number): Effect[] {
    const c = this.#context
    if ('conn' in event && event.conn !== connOf(this.#session)) return []
    const { kind } = this.#session
    // Before anything is changed.
    if (!(event.type in table[kind])) throw new IllegalEventError(kind, event.type)
    c.now = now
    c.effects = []
    expire(c)
    this.#transition(event)
    if (this.#session.kind === 'Ready' && c.queue.length > 0) this.#transition({ type: 'next' })
    return c.effects
  }

  /** One entry of the table. What the user sees of it follows its effects. */
  #transition(event: SessionEvent): void {
    const c = this.#context
    const before = this.#session
    const after = transition(table, c, before, event)
    this.#session = after
    const [previous, state] = [stateNames[before.kind], stateNames[after.kind]]
    if (state === previous) return
    const cause = after.kind === 'Failed' ? after.failure.cause : after.kind === 'Due' ? c.lastFailure : undefined
    c.effects.push({ type: 'state', state, previous, cause })
  }

  /** When the next `wake` is due; infinite if only an event from outside can change anything. */
  get wakeAt(): number {
    const { queue, budgetEnd } = this.#context
    const session = this.#session
    switch (session.kind) {
      case 'Due':
        return Math.min(queue.nextDeadline, session.at, budgetEnd)
      case 'Dialing':
      case 'Greeting':
        return Math.min(queue.nextDeadline, session.until, budgetEnd)
      case 'Busy':
        return Math.min(queue.nextDeadline, session.replyBy, session.ticket.deadline)
      default:
        return queue.nextDeadline
    }
  }
}
