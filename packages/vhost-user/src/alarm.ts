import type { Clock } from '@upcall/foundation/clock'

/** The one timer that wakes a machine. The machine may be woken early, so a timer that is set stays where a later time is wanted. */
export class Alarm {
  readonly #clock: Clock
  readonly #wake: () => void
  #at = Number.POSITIVE_INFINITY
  #cancel: () => void = () => {}

  constructor(clock: Clock, wake: () => void) {
    this.#clock = clock
    this.#wake = wake
  }

  /** `wake` is called at this time, or earlier. */
  set(at: number): void {
    if (at >= this.#at) return
    this.#cancel()
    this.#at = at
    this.#cancel = this.#clock.setTimer(Math.max(0, at - this.#clock.now()), () => {
      this.#at = Number.POSITIVE_INFINITY
      this.#wake()
    })
  }

  cancel(): void {
    this.#cancel()
  }
}
