import { type Clock, systemClock } from '@upcall/foundation/clock'

/** What keeps a process alive, or not. */
export interface Referable {
  ref(): unknown
  unref(): unknown
}

/**
 * Whether connecting keeps the process alive, as `ref()` and `unref()` of its socket say: each timer and the socket of each attempt
 * follow. The timers of a clock that the caller gave are the caller's.
 */
export class Life implements Clock {
  readonly #clock: Clock
  readonly #held = new Set<Referable>()
  #referenced = true

  constructor(clock: Clock = systemClock) {
    this.#clock = clock
  }

  now(): number {
    return this.#clock.now()
  }

  setTimer(ms: number, fn: () => void): () => void {
    if (this.#clock !== systemClock) return this.#clock.setTimer(ms, fn)
    const timer = setTimeout(() => {
      this.#held.delete(timer)
      fn()
    }, ms)
    const release = this.hold(timer)
    return () => {
      clearTimeout(timer)
      release()
    }
  }

  /** @returns how to let it go. */
  hold(each: Referable): () => void {
    this.#held.add(each)
    if (!this.#referenced) each.unref()
    return () => void this.#held.delete(each)
  }

  set(referenced: boolean): void {
    this.#referenced = referenced
    for (const each of this.#held) referenced ? each.ref() : each.unref()
  }
}
