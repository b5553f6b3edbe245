/** Where time comes from. Milliseconds, monotonic. */
export interface Clock {
  now(): number
  /** Calls `fn` after `ms`, unless the result is called first. */
  setTimer(ms: number, fn: () => void): () => void
}

/** The real one. Its timers do not keep the process alive: whatever they guard does. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer(ms, fn) {
    const timer = setTimeout(fn, ms).unref()
    return () => clearTimeout(timer)
  },
}
