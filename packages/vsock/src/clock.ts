/** Where deadlines and delays come from; tests pass one that they wind themselves. */
export interface Clock {
  /** Milliseconds since some fixed point; never goes back. */
  now(): number
  /** Calls `fn` once, `ms` milliseconds from now, unless the returned function is called first. */
  setTimer(ms: number, fn: () => void): () => void
}

export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  },
}

/** Longest delay setTimeout keeps; a longer one would fire at once. */
const MAX_MS = 0x7fffffff

/** @throws {RangeError} unless `value` is a duration a timer can hold. */
export function checkDuration(name: string, value: number, min = 1): number {
  if (Number.isFinite(value) && value >= min && value <= MAX_MS) return value
  throw new RangeError(`${name} is ${value}; it is a number of milliseconds from ${min} to ${MAX_MS}`)
}
