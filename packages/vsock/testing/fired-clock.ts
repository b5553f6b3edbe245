import type { Clock } from '@upcall/foundation/clock'

/** A clock that stands still. Its timers fire when the test says so, whatever their delay is. */
export class FiredClock implements Clock {
  readonly #timers = new Set<{ readonly ms: number; readonly fn: () => void }>()

  now(): number {
    return 0
  }

  setTimer(ms: number, fn: () => void): () => void {
    const timer = { ms, fn }
    this.#timers.add(timer)
    return () => void this.#timers.delete(timer)
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size
  }

  /** Fires the timers that are set now; with `ms`, only those with that delay. */
  fire(ms?: number): void {
    for (const timer of [...this.#timers]) if ((ms === undefined || timer.ms === ms) && this.#timers.delete(timer)) timer.fn()
  }
}
