import type { Clock } from '@upcall/foundation/clock'

/** Time that passes only when a test says so. */
export class ManualTime implements Clock {
  #now = 0
  readonly #timers = new Set<{ at: number; fn: () => void }>()

  readonly now = (): number => this.#now

  readonly setTimer = (ms: number, fn: () => void): (() => void) => {
    const timer = { at: this.#now + ms, fn }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  get timers(): number {
    return this.#timers.size
  }

  /** Runs the timers that are due on the way, in their order. */
  advance(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const [next] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
      if (next === undefined) break
      this.#timers.delete(next)
      this.#now = Math.max(this.#now, next.at)
      next.fn()
    }
    this.#now = end
  }
}
