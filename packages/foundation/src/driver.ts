import { type Clock, setLongTimer } from './clock.js'

/** A machine as its driver sees it. */
export interface Machine<Event, Effect> {
  /** Handles one event and returns what has to be done, in order. */
  step(event: Event, now: number): readonly Effect[]
  /** When the next `wake` event is due; infinite if only an event from outside can change anything. */
  readonly wakeAt: number
}

export interface DriverOptions<Event, Effect> {
  readonly machine: Machine<Event | { readonly type: 'wake' }, Effect>
  readonly clock: Clock
  /** Does one effect. The effects of what it tells the driver meanwhile are performed after those that are under way. */
  readonly perform: (effect: Effect) => void
}

/** So many effects may be kept although they are performed. */
const KEPT = 256

/**
 * The one loop that runs a machine: events go in through `tell`, effects are performed in order, and one timer wakes the machine when
 * it is due. An event that arrives while another one is handled waits for its turn.
 *
 * A step or an effect that throws is a bug. `tell` throws the first such error, after everything else is done: the other events are
 * handled, the other effects performed and the timer set.
 */
export class Driver<Event, Effect> {
  readonly #machine: Machine<Event | { readonly type: 'wake' }, Effect>
  readonly #clock: Clock
  readonly #perform: (effect: Effect) => void
  readonly #events: (Event | { readonly type: 'wake' })[] = []
  readonly #effects: Effect[] = []
  #handling = false
  #performing = false
  #stopped = false
  #timer: { readonly at: number; cancel(): void } | undefined

  constructor({ machine, clock, perform }: DriverOptions<Event, Effect>) {
    this.#machine = machine
    this.#clock = clock
    this.#perform = perform
  }

  /** The one way into the machine. @throws What a step or an effect throws. */
  tell(event: Event | { readonly type: 'wake' }): void {
    if (this.#stopped) return
    this.#events.push(event)
    // A callback that tells the driver something while the machine runs is heard when the machine is through.
    if (this.#handling) return
    const failures: unknown[] = []
    this.#handle(failures)
    if (!this.#performing) {
      this.#performAll(failures)
      this.#setTimer()
    }
    if (failures.length > 0) throw failures[0]
  }

  /** No event reaches the machine from here on, and no timer is left. Idempotent. */
  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
    this.#timer = undefined
  }

  #handle(failures: unknown[]): void {
    this.#handling = true
    for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
      try {
        // One by one: there may be more effects than a call can have arguments.
        for (const effect of this.#machine.step(next, this.#clock.now())) this.#effects.push(effect)
      } catch (error) {
        failures.push(error)
      }
    }
    this.#handling = false
  }

  #performAll(failures: unknown[]): void {
    this.#performing = true
    let performed = 0
    while (performed < this.#effects.length) {
      try {
        this.#perform(this.#effects[performed++]!)
      } catch (error) {
        failures.push(error)
      }
      // One effect may cause the next one for as long as there is something to do: those that are done are not all kept. It is done so
      // rarely that each is moved once on average.
      if (performed < KEPT || 2 * performed < this.#effects.length) continue
      this.#effects.splice(0, performed)
      performed = 0
    }
    this.#effects.length = 0
    this.#performing = false
  }

  #setTimer(): void {
    if (this.#stopped) return
    const at = this.#machine.wakeAt
    if (this.#timer?.at === at) return
    this.#timer?.cancel()
    this.#timer = undefined
    if (!Number.isFinite(at)) return
    const ms = Math.max(0, Math.ceil(at - this.#clock.now()))
    const cancel = setLongTimer(this.#clock, ms, () => {
      this.#timer = undefined
      this.tell({ type: 'wake' })
    })
    this.#timer = { at, cancel }
  }
}
