import type { Clock } from '../src/clock.js'

interface Timer {
  readonly at: number
  readonly fire: () => void
}

/**
 * The platform's clock, which a test can move forward. A deadline that is meant to pass then passes at once, and no other deadline has
 * to be short. For tests with real sockets or processes; all others use {@link ManualClock}.
 */
export class SkippingClock implements Clock {
  #skipped = 0
  readonly #timers = new Set<Timer>()

  /** Milliseconds, with what was skipped. Bound, so that it can be passed on alone. */
  readonly now = (): number => performance.now() + this.#skipped

  /** Calls `fn` once, `ms` from now, unless the returned function is called first. */
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
    // A delay that setTimeout does not keep is only ever skipped.
    const timeout = ms <= 0x7fff_ffff ? setTimeout(timer.fire, ms) : undefined
    this.#timers.add(timer)
    return end
  }

  /** Moves forward by `ms` and runs the timers that come due on the way, in order. */
  skip(ms: number): void {
    this.#skipped += ms
    const due = [...this.#timers].filter(({ at }) => at <= this.now()).sort((a, b) => a.at - b.at)
    for (const timer of due) if (this.#timers.has(timer)) timer.fire()
  }
}
