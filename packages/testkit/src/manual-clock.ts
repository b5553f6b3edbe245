import type { Clock } from '@upcall/client'
import { atLeast, checkFunction, checkObject, count, show } from './check.js'

/** Options of {@link ManualClock}. */
export interface ManualClockOptions {
  /** What `now()` says at first, in milliseconds. Default 0. */
  start?: number | undefined
  /** How many timers one call may run before it fails: two parties that keep waking each other are a fault, not a wait. Default 10 000. */
  limit?: number | undefined
}

interface Timer {
  at: number
  order: number
  run: () => void
}

/** Time that moves only when told to. Fits wherever the client or the server takes a clock. */
export class ManualClock implements Clock {
  #now: number
  readonly #limit: number
  readonly #timers = new Set<Timer>()
  #order = 0

  /** @throws TypeError or RangeError that names the option that is wrong. */
  constructor(options: ManualClockOptions = {}) {
    checkObject('ManualClock: options', options)
    const { start = 0, limit = 10_000 } = options
    if (!Number.isFinite(start)) throw new RangeError(`ManualClock: start: must be a finite number, got ${show(start)}`)
    this.#now = start
    this.#limit = count('ManualClock: limit', limit, 1)
  }

  /** Milliseconds. Bound, so that it can be handed on alone. */
  readonly now = (): number => this.#now

  /** Calls `fn` once, `ms` from now, unless the returned function is called first. */
  readonly setTimer = (ms: number, fn: () => void): (() => void) => {
    // As with setTimeout, less than 0 is 0; what is no number would never be due.
    atLeast('ManualClock.setTimer: ms', ms, Number.NEGATIVE_INFINITY)
    checkFunction('ManualClock.setTimer: fn', fn)
    const timer: Timer = { at: this.#now + Math.max(0, ms), order: this.#order++, run: fn }
    this.#timers.add(timer)
    return () => void this.#timers.delete(timer)
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size
  }

  /** When the next timer is due, on `now()`'s scale. */
  get nextAt(): number | undefined {
    return this.#next()?.at
  }

  /** Jumps to the next timer and runs it. False if none is set. */
  runNext(): boolean {
    const timer = this.#next()
    if (timer === undefined) return false
    this.#timers.delete(timer)
    this.#now = Math.max(this.#now, timer.at)
    timer.run()
    return true
  }

  /** Moves on by `ms` and runs the timers that come due on the way, in order, those set on the way included. */
  advance(ms: number): void {
    if (!Number.isFinite(atLeast('ManualClock.advance: ms', ms, 0)))
      throw new RangeError('ManualClock.advance: ms: must be finite')
    const target = this.#now + ms
    for (let ran = 0; (this.nextAt ?? Number.POSITIVE_INFINITY) <= target; ran++) {
      if (ran === this.#limit)
        throw new Error(`ManualClock.advance(${ms}): ${ran} timers ran and there is no end of it (a livelock)`)
      this.runNext()
    }
    this.#now = target
  }

  /**
   * Moves on, timer by timer, until `promise` settles, and settles as it does. Between two timers everything that waits for no
   * timer gets to run: promises and in-memory streams always, sockets only by chance.
   *
   * @throws If no timer is left while the promise is pending, or the limit is reached.
   */
  async drive<T>(promise: Promise<T>): Promise<T> {
    if (typeof promise?.then !== 'function') throw new TypeError(`promise: must be a promise, got ${show(promise)}`)
    let settled = false
    const watch = () => {
      settled = true
    }
    promise.then(watch, watch)
    for (let ran = 0; ; ran++) {
      await settle()
      if (settled) return promise
      if (ran === this.#limit)
        throw new Error(`ManualClock.drive(): ${ran} timers ran and the promise is still pending (a livelock)`)
      if (!this.runNext()) throw new Error('ManualClock.drive(): the promise is pending and no timer is set (a deadlock)')
    }
  }

  #next(): Timer | undefined {
    let next: Timer | undefined
    for (const timer of this.#timers) {
      if (next === undefined || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) next = timer
    }
    return next
  }
}

/** Resolves when every promise and every in-memory stream has gone as far as it can without a timer. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
