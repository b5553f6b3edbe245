import { transition } from '@upcall/foundation/machine'
import type { ConnectionEvent, Effect } from './event.js'
import type { State } from './state.js'
import { type Limits, table } from './table.js'

/**
 * One accepted connection as a pure machine: events and the time go in, effects come out. It sees no stream, timer or promise. All its
 * rules are in table.ts.
 */
export class ConnectionMachine {
  readonly #limits: Limits
  #state: State

  /** @param now - When the connection was accepted, in milliseconds on the clock of every later `now`. */
  constructor(limits: Limits, now: number) {
    this.#limits = limits
    this.#state = { kind: 'Selecting', deadline: now + limits.serviceByteTimeoutMs }
  }

  get state(): State {
    return this.#state
  }

  /** Whether the stream is to be read now. */
  get reads(): boolean {
    return this.#state.kind === 'Selecting' || this.#state.kind === 'Reading'
  }

  /** When the next `wake` is due; infinite if only an event from outside can change anything. */
  get wakeAt(): number {
    return 'deadline' in this.#state ? this.#state.deadline : Number.POSITIVE_INFINITY
  }

  /**
   * Handles one event.
   *
   * @returns What the driver has to do, in order.
   * @throws IllegalEventError if the event cannot happen in this state. The state is not changed then.
   */
  step(event: ConnectionEvent, now: number): Effect[] {
    const context = { limits: this.#limits, now, effects: [] as Effect[] }
    this.#state = transition(table, context, this.#state, event)
    return context.effects
  }
}
