import { entry } from '../entry.js'
import type { Taken } from './frame.js'

/** Sums for pairs of guests. */
export class Balance {
  readonly #bySender = new Map<number, Map<number, number>>()

  add(sender: number, receiver: number, cost: number): void {
    const row = entry(this.#bySender, sender, () => new Map<number, number>())
    row.set(receiver, (row.get(receiver) ?? 0) + cost)
  }

  /** Takes at most `cost`, and returns how much there was. */
  take(sender: number, receiver: number, cost: number): number {
    const row = this.#bySender.get(sender)
    const there = row?.get(receiver) ?? 0
    const taken = Math.min(there, cost)
    if (taken === there) this.#delete(sender, receiver)
    else row!.set(receiver, there - taken)
    return taken
  }

  /** All sums that are more than 0, which are 0 then. */
  takeAll(limit = Number.POSITIVE_INFINITY): Taken[] {
    const all: Taken[] = []
    for (const [sender, row] of this.#bySender) {
      for (const [receiver, cost] of row) {
        if (all.length === limit) return all
        if (cost > 0) all.push({ sender, receiver, cost })
        if (cost >= 0) this.#delete(sender, receiver)
      }
    }
    return all
  }

  /** What there is for this sender, which is forgotten. */
  forget(sender: number): void {
    this.#bySender.delete(sender)
  }

  #delete(sender: number, receiver: number): void {
    const row = this.#bySender.get(sender)
    row?.delete(receiver)
    if (row?.size === 0) this.#bySender.delete(sender)
  }
}
