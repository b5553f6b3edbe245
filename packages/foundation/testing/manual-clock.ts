import { checkFunction, checkObject, integer, wrongType, wrongValue } from '../src/check.js'
import type { Clock } from '../src/clock.js'

/** Options of {@link ManualClock}. */
export interface ManualClockOptions {
  /** What `now()` returns at first, in milliseconds. Default 0. */
  start?: number | undefined
  /** How many timers one call may run before it fails: two sides that wake each other without end are a fault. Default 10,000. */
  limit?: number | undefined
}

interface Timer {
  at: number
  order: number
  run: () => void
}

/** Time that moves only when a test moves it. Fits wherever the packages take a clock. */
export class ManualClock implements Clock {
  #now: number
  readonly #limit: number
  readonly #timers = new Set<Timer>()
  readonly #watchers: { readonly ms: number; readonly resolve: () => void }[] = []
  #order = 0

  /** @throws TypeError or RangeError that names the option that is wrong. */
  constructor(options: ManualClockOptions = {}) {
    checkObject('ManualClock: options', options)
    const { start = 0, limit = 10_000 } = options
    if (!Number.isFinite(start)) wrongValue('ManualClock: start', 'a finite number', start)
    this.#now = start
    this.#limit = integer('ManualClock: limit', limit, { min: 1 })
  }

  /** Milliseconds. Bound, so that it can be passed on alone. */
  readonly now = (): number => this.#now

  /** Calls `fn` once, `ms` from now, unless the returned function is called first; never if `ms` is infinite. */
  readonly setTimer = (ms: number, fn: () => void): (() => void) => {
    // As with setTimeout, less than 0 is 0. A timer whose delay is not a number would never be due.
    if (typeof ms !== 'number' || Number.isNaN(ms)) wrongValue('ManualClock.setTimer: ms', 'a number', ms)
    checkFunction('ManualClock.setTimer: fn', fn)
    const timer: Timer = { at: this.#now + Math.max(0, ms), order: this.#order++, run: fn }
    this.#timers.add(timer)
    const watcher = this.#watchers.findIndex((each) => each.ms === ms)
    if (watcher >= 0) this.#watchers.splice(watcher, 1)[0]!.resolve()
    return () => void this.#timers.delete(timer)
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size
  }

  /** Resolves when a timer of exactly `ms` milliseconds is set from now on: the moment to `advance()`. */
  armed(ms: number): Promise<void> {
    return new Promise((resolve) => this.#watchers.push({ ms, resolve }))
  }

  /** When the next timer is due, on `now()`'s scale. Undefined if no timer is set, or none that is ever due. */
  get nextAt(): number | undefined {
    return this.#next()?.at
  }

  /** Jumps to the next timer and runs it. False if there is no such timer. */
  runNext(): boolean {
    const timer = this.#next()
    if (timer === undefined) return false
    this.#timers.delete(timer)
    this.#now = Math.max(this.#now, timer.at)
    timer.run()
    return true
  }

  /** Moves forward by `ms` and runs the timers that come due on the way, in order, including those that are set on the way. */
  advance(ms: number): void {
    if (!(Number.isFinite(ms) && ms >= 0)) wrongValue('ManualClock.advance: ms', 'a finite number of at least 0', ms)
    const target = this.#now + ms
    for (let ran = 0; (this.nextAt ?? Number.POSITIVE_INFINITY) <= target; ran++) {
      if (ran === this.#limit) throw new Error(`ManualClock.advance(${ms}): ${ran} timers ran and more are due (a livelock)`)
      this.runNext()
    }
    this.#now = target
  }

  /**
   * Moves forward, timer by timer, until `promise` settles, and settles in the same way. Between two timers, everything runs that does not
   * wait for a timer: promises and in-memory streams always, sockets only by chance.
   *
   * @throws Error if no timer is left while the promise is pending, or if the limit is reached.
   */
  async drive<T>(promise: Promise<T>): Promise<T> {
    if (typeof promise?.then !== 'function') wrongType('ManualClock.drive: promise', 'a promise', promise)
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
      if (timer.at === Number.POSITIVE_INFINITY) continue
      if (next === undefined || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) next = timer
    }
    return next
  }
}

/** Resolves when every promise and every in-memory stream has gone as far as it can without a timer. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
