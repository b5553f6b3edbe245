/** Where deadlines and delays come from. Tests pass a clock that they turn by hand. */
export interface Clock {
  /** Milliseconds since a fixed point. It never goes back. */
  now(): number
  /** Calls `fn` once, `ms` milliseconds from now. The returned function cancels the call. */
  setTimer(ms: number, fn: () => void): () => void
}

/** The longest delay that setTimeout keeps: it fires at once beyond this, which is 24 days. */
const LONGEST_TIMER_MS = 0x7fff_ffff

/**
 * Calls `fn` after any delay, and never if it is infinite. A clock that a caller gives may be made of setTimeout, so it is not asked
 * for a delay that setTimeout does not keep.
 */
export function setLongTimer(clock: Pick<Clock, 'setTimer'>, ms: number, fn: () => void): () => void {
  let cancel = () => {}
  const wait = (left: number) => {
    if (left === Number.POSITIVE_INFINITY) return
    const part = Math.min(left, LONGEST_TIMER_MS)
    cancel = clock.setTimer(part, left > part ? () => wait(left - part) : fn)
  }
  wait(ms)
  return () => cancel()
}

const timeouts: Pick<Clock, 'setTimer'> = {
  setTimer(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  },
}

/** The monotonic clock and the timers of the platform. It keeps any delay. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer: (ms, fn) => setLongTimer(timeouts, ms, fn),
}
