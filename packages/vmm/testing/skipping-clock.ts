interface Timer {
  readonly at: number
  readonly fire: () => void
}

/** The platform's clock, of which a test can skip some: so a deadline that is meant to pass passes at once, and no other has to be short. */
export class SkippingClock {
  #skipped = 0
  readonly #timers = new Set<Timer>()

  /** Bound, so that it can be handed on alone. */
  readonly now = (): number => performance.now() + this.#skipped

  readonly setTimer = (ms: number, fn: () => void): (() => void) => {
    const end = () => {
      clearTimeout(timeout)
      this.#timers.delete(timer)
    }
    const timer = {
      at: this.now() + ms,
      fire: () => {
        end()
        fn()
      },
    }
    const timeout = setTimeout(timer.fire, ms)
    this.#timers.add(timer)
    return end
  }

  /** Moves on by `ms`; what comes due on the way is called, in order. */
  skip(ms: number): void {
    this.#skipped += ms
    const due = [...this.#timers].filter(({ at }) => at <= this.now()).sort((a, b) => a.at - b.at)
    for (const timer of due) if (this.#timers.has(timer)) timer.fire()
  }
}
