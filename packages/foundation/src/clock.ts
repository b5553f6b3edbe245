/** Where deadlines and delays come from. Tests pass one that they turn by hand. */
export interface Clock {
  /** Milliseconds since a fixed point. It never goes back. */
  now(): number
  /** Calls `fn` once, `ms` milliseconds from now; never if that is infinite. The returned function cancels the call. */
  setTimer(ms: number, fn: () => void): () => void
}

/** The longest delay that setTimeout keeps: it fires at once beyond this, which is 24 days. */
const LONGEST_TIMER_MS = 0x7fff_ffff

/** The monotonic clock and the timers of the platform. It keeps any delay. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer(ms, fn) {
    let timer: ReturnType<typeof setTimeout> | undefined
    let left = ms
    const arm = () => {
      if (left === Number.POSITIVE_INFINITY) return
      const part = Math.min(left, LONGEST_TIMER_MS)
      left -= part
      timer = setTimeout(left > 0 ? arm : fn, part)
    }
    arm()
    return () => clearTimeout(timer)
  },
}
