/** Time as the server sees it. Tests pass one that they turn by hand. */
export interface Clock {
  /** Milliseconds from any fixed point, never going backwards. */
  now(): number
  /** Calls `fn` once, `ms` from now, unless the returned function is called first. */
  setTimer(ms: number, fn: () => void): () => void
}

/** The platform's monotonic clock and timers. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  },
}
