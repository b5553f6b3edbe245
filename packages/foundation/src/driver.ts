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
  /** Does one effect. What it tells the driver meanwhile is handled after the effects that are under way. */
  readonly perform: (effect: Effect) => void
}

/**
 * The one loop that runs a machine: events go in through `tell`, effects are performed in order, and one timer wakes the machine when
 * it is due. An event that arrives while another one is handled waits for its turn.
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

  /** The one way into the machine. */
  tell(event: Event | { readonly type: 'wake' }): void {
    if (this.#stopped) return
    this.#events.push(event)
    // A callback that tells the driver something while the machine runs is heard when the machine is through.
    if (this.#handling) return
    this.#handle()
    if (this.#performing) return
    this.#performAll()
    this.#setTimer()
  }

  /** No event reaches the machine from here on, and no timer is left. Idempotent. */
  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
    this.#timer = undefined
  }

  #handle(): void {
    this.#handling = true
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift())
        // One by one: there may be more effects than a call can have arguments.
        for (const effect of this.#machine.step(next, this.#clock.now())) this.#effects.push(effect)
    } finally {
      this.#handling = false
    }
  }

  #performAll(): void {
    this.#performing = true
    let performed = 0
    try {
      while (performed < this.#effects.length) this.#perform(this.#effects[performed++]!)
    } finally {
      this.#effects.splice(0, performed)
      this.#performing = false
    }
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
