/** How the delays between attempts grow, in milliseconds. */
export interface Backoff {
  readonly minDelayMs: number
  readonly maxDelayMs: number
  /** Uniform in [0, 1). Left out: no jitter, each delay is the greatest that its attempt may have. */
  readonly random?: (() => number) | undefined
}

/**
 * The delay before attempt number `attempt` (from 1): uniform between the least delay and a cap that doubles up to the greatest.
 * @throws What `random` throws; RangeError if it returns anything but a number from 0 to 1.
 */
export function backoffDelay({ minDelayMs, maxDelayMs, random }: Backoff, attempt: number): number {
  const cap = Math.max(minDelayMs, Math.min(maxDelayMs, minDelayMs * 2 ** attempt))
  const part = random === undefined ? 1 : random()
  // A delay that is not a number would be waited for without a timer, for ever.
  if (typeof part !== 'number' || !(part >= 0 && part <= 1))
    throw new RangeError(`random: must return a number from 0 to 1, got ${String(part)}`)
  return minDelayMs + part * (cap - minDelayMs)
}
