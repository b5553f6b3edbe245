/** How often something may happen, or how much may move. */
export interface Rate {
  /** So much a second, on average. */
  readonly perSecond: number
  /** So much at once, after a time without any. */
  readonly burst: number
}

/** A closed bucket opens when this much time's worth is in it: a bucket that opened for every byte would be a timer for every packet. */
const PAUSE_MS = 10

/** Allows a rate on average, and a burst at once. Time never goes back. */
export class TokenBucket {
  #rate: Rate
  /** Below 0 after something larger than what was left. */
  #tokens: number
  #filledAt: number
  #opensAt = Number.NEGATIVE_INFINITY

  /** It begins full. */
  constructor(rate: Rate, now: number) {
    this.#rate = rate
    this.#tokens = rate.burst
    this.#filledAt = now
  }

  /** Whether one token is there. */
  has(now: number): boolean {
    this.#fill(now)
    return this.#tokens >= 1
  }

  /** Takes so many, whether they are there or not: a packet is as large as it is. What is missing is waited for afterwards. */
  take(count: number, now: number): void {
    this.#fill(now)
    this.#tokens -= count
    this.#judge(now)
  }

  /** From when on something of unknown size may be taken: now, if that time is over. */
  get opensAt(): number {
    return this.#opensAt
  }

  /** Another rate from now on. What is in the bucket stays, as far as the new burst holds it. */
  change(rate: Rate, now: number): void {
    this.#fill(now)
    this.#rate = rate
    this.#tokens = Math.min(this.#tokens, rate.burst)
    // A debt was made at the old rate. A rate that is raised shall be felt within a second.
    this.#tokens = Math.max(this.#tokens, -rate.perSecond)
    this.#judge(now)
  }

  #fill(now: number): void {
    const { perSecond, burst } = this.#rate
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#filledAt) * perSecond) / 1000)
    this.#filledAt = now
  }

  #judge(now: number): void {
    if (this.#tokens > 0) {
      this.#opensAt = Number.NEGATIVE_INFINITY
      return
    }
    const { perSecond, burst } = this.#rate
    const wanted = Math.min(burst, (perSecond * PAUSE_MS) / 1000)
    this.#opensAt = now + ((wanted - this.#tokens) * 1000) / perSecond
  }
}
