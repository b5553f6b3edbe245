import { entry } from '../entry.js'
import { Line } from '../line.js'

/**
 * Ends with a packet to send. The guests that they connect to take turns, and the ends with the same guest take turns among themselves: a
 * guest with a thousand connections gets no more than a guest with a single connection.
 */
export class FairLine<T extends { readonly peerCid: number }> {
  readonly #lines = new Map<number, Line<T>>()
  readonly #guests = new Line<Line<T>>()
  #size = 0

  get size(): number {
    return this.#size
  }

  get first(): T | undefined {
    return this.#guests.first?.first
  }

  /** A member that is in the line keeps its place. */
  join(member: T): void {
    const line = entry(this.#lines, member.peerCid, () => new Line<T>())
    this.#change(line, member, () => line.join(member))
  }

  leave(member: T): void {
    const line = this.#lines.get(member.peerCid)
    if (line !== undefined) this.#change(line, member, () => line.leave(member))
  }

  /** It is the next guest's turn: `member`, who was the first, had its own, and may have left since. */
  turn(member: T): void {
    const line = this.#lines.get(member.peerCid)
    if (line === undefined) return
    if (line.first === member) line.turn()
    if (this.#guests.first === line) this.#guests.turn()
  }

  #change(line: Line<T>, { peerCid }: T, act: () => void): void {
    this.#size -= line.size
    act()
    this.#size += line.size
    if (line.size > 0) this.#guests.join(line)
    else {
      this.#guests.leave(line)
      this.#lines.delete(peerCid)
    }
  }
}
