import { NEVER } from '../credit.js'
import { entry } from '../entry.js'

/**
 * What a guest has sent and other guests have yet to take, in bytes, with the bookkeeping: while it is more, no packet is taken from the
 * sender. Sixteen connections with the buffers that Linux has by default (256 KiB) fit.
 */
export const MAX_HELD = 4 << 20
/**
 * How long a sender is held up before a receiver is to blame for it, and how often that is looked into. Shorter than a handshake may take, so
 * that connections with other guests can begin all the same.
 */
const PERIOD_MS = 1_000
/** A receiver is to blame if it has taken less than this part of what waits for it: 1/32 (with 4 MiB, 128 KiB a second). */
const SLOW_PART = 32
/** For so long, no more may wait for a receiver that was to blame than half of what the sender has left. */
const DISTRUST_MS = 60_000

/** What waits for one receiver. */
interface Share {
  cost: number
  /** What it has taken in this period. */
  taken: number
  distrustedUntil: number
}

const newShare = (): Share => ({ cost: 0, taken: 0, distrustedUntil: 0 })

/**
 * How much of one sender may wait in the switch, by receiver. A sender has one ring for all its packets, so a receiver that takes nothing holds
 * up everything that the sender says to anyone. It can do that for a second a minute: then it is known, and loses its connections as
 * soon as too much waits for it.
 */
export class Allowance {
  #held = 0
  #checkAt = NEVER
  readonly #shares = new Map<number, Share>()

  get held(): number {
    return this.#held
  }

  /** No packet is to be taken from the sender. */
  get full(): boolean {
    return this.#held >= MAX_HELD
  }

  /** When `check` wants to be called. */
  get checkAt(): number {
    return this.#checkAt
  }

  /** Whether a packet that costs so much may wait for that receiver. Otherwise its connection is to be given up. */
  permits(cid: number, cost: number, now: number): boolean {
    const share = this.#shares.get(cid)
    if (share === undefined || now >= share.distrustedUntil) return true
    return share.cost + cost <= (MAX_HELD - this.#held) / 2
  }

  /** A packet waits for that receiver. */
  charge(cid: number, cost: number, now: number): void {
    const share = entry(this.#shares, cid, newShare)
    share.cost += cost
    this.#held += cost
    if (this.full && this.#checkAt === NEVER) this.#begin(now)
  }

  /** That receiver has taken packets, or they were dropped. True if the sender was held up and is no longer. */
  release(cid: number, cost: number): boolean {
    const share = this.#shares.get(cid)
    if (share === undefined || cost === 0) return false
    const wasFull = this.full
    share.cost -= cost
    share.taken += cost
    this.#held -= cost
    if (share.cost === 0 && share.distrustedUntil === 0) this.#shares.delete(cid)
    // Not as soon as there is room for a packet: a receiver that takes one every second would hold the sender up for ever.
    if (this.#held < MAX_HELD / 2) this.#checkAt = NEVER
    return wasFull && !this.full
  }

  /** The receivers that hold the sender up. They are distrusted from now on. */
  check(now: number): number[] {
    if (now < this.#checkAt) return []
    const slow: number[] = []
    for (const [cid, share] of this.#shares) {
      if (this.full && share.cost > 0 && share.taken < share.cost / SLOW_PART) {
        share.distrustedUntil = now + DISTRUST_MS
        slow.push(cid)
      } else if (share.cost === 0 && now >= share.distrustedUntil) this.#shares.delete(cid)
    }
    this.#begin(now)
    return slow
  }

  #begin(now: number): void {
    this.#checkAt = now + PERIOD_MS
    for (const share of this.#shares.values()) share.taken = 0
  }
}
