import type { Context, SessionOptions } from './context.js'
import { TicketQueue } from './queue.js'
import { connOf, type Effect, type OutsideEvent, type Session, type SessionEvent, type StateName, stateNames } from './session.js'
import { expire, table } from './table.js'

type AnyHandler = (c: Context, state: Session, event: SessionEvent) => Session
const next = { type: 'next' } as const

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

  /** What ended the attempts, in ReconnectError; otherwise the last failure since the service greeted. */
  get cause(): unknown {
    return this.#session.kind === 'Failed' ? this.#session.cause : this.#context.lastFailure
  }

  /** Requests that wait to be sent, without the one under way. */
  get queued(): number {
    return this.#context.queue.length
  }

  /**
   * Handles one event.
   *
   * @param now - Milliseconds, never less than at the event before.
   * @returns What the driver has to do, in order.
   * @throws Error if the event cannot happen in this state; the session is then as it was.
   */
  handle(event: OutsideEvent, now: number): Effect[] {
    const c = this.#context
    if ('conn' in event && event.conn !== connOf(this.#session)) return []
    const handler = this.#handler(event)
    c.now = now
    c.effects = []
    expire(c)
    this.#step(handler, event)
    if (this.#session.kind === 'Ready' && c.queue.length > 0) this.#step(this.#handler(next), next)
    return c.effects
  }

  /** One row of the table; what the outside sees of it follows its effects. */
  #step(handler: AnyHandler, event: SessionEvent): void {
    const c = this.#context
    const before = this.#session
    const after = handler(c, before, event)
    this.#session = after
    const [previous, state] = [stateNames[before.kind], stateNames[after.kind]]
    if (state === previous) return
    const cause = after.kind === 'Failed' ? after.cause : after.kind === 'Due' ? c.lastFailure : undefined
    c.effects.push({ type: 'state', state, previous, cause })
  }

  #handler(event: SessionEvent): AnyHandler {
    // The table says which state goes with which handler; here, where both come from outside, the compiler cannot follow.
    const handler = table[this.#session.kind][event.type] as AnyHandler | undefined
    if (handler === undefined) throw new Error(`session: ${event.type} cannot happen in ${this.#session.kind}`)
    return handler
  }

  /** When the next `wake` is due; infinite if only an event from outside can change anything. */
  get wakeAt(): number {
    const { queue, budgetEnd } = this.#context
    const session = this.#session
    let at = queue.nextDeadline
    switch (session.kind) {
      case 'Due':
        at = Math.min(at, session.at, budgetEnd)
        break
      case 'Dialing':
      case 'Greeting':
        at = Math.min(at, session.until, budgetEnd)
        break
      case 'Busy':
        at = Math.min(at, session.replyBy, session.ticket.deadline)
        break
      default:
    }
    return at
  }
}
