/**
 * Bounds the packets that wait in the guest's socket, besides their bytes. Linux counts a packet's bookkeeping against the buffer (576
 * bytes on x86-64, whatever its length) and resets a connection whose packets outgrow it: stable 6.12.94 and later, the fix of
 * CVE-2026-23086. It joins packets of at most 128 bytes, so what is counted here is never too few.
 */

/** What a packet costs of the guest's buffer, in bytes, with room for other architectures and configurations. */
const PACKET_COST = 1024
/** However large a buffer the guest tells of, the host remembers no more packets than that. */
export const MAX_PACKETS = 16_384

/** How many packets a guest with a buffer of so many bytes may have waiting; at least one, or nothing would ever move. */
export function packetLimit(allocation: number): number {
  return Math.max(1, Math.min(Math.floor(allocation / PACKET_COST), MAX_PACKETS))
}

/**
 * So many packets are remembered one by one. A guest can have more under way on each of a thousand connections, all of which the host would
 * have to remember: beyond that, neighbours are put together, and count as taken when the last of them is.
 */
const MAX_ENTRIES = 128

/** The packets that were sent and that the guest has not taken yet. Counters are 32 bits wide and wrap. */
export class PacketWindow {
  /** How many there are; perhaps more than there are, and never fewer. */
  size = 0
  /** Where each entry ends in the count of bytes sent, and how many packets it stands for. Those before `#first` have been taken. */
  #ends: number[] = []
  #counts: number[] = []
  #first = 0

  /** A packet went out; it ends at this count of bytes sent. */
  add(end: number): void {
    this.#ends.push(end)
    this.#counts.push(1)
    this.size++
    if (this.#ends.length - this.#first > MAX_ENTRIES) this.#joinNeighbours()
  }

  /** The guest has taken all bytes up to this count. */
  taken(count: number): void {
    while (this.#first < this.#ends.length && ((count - this.#ends[this.#first]!) | 0) >= 0) {
      this.size -= this.#counts[this.#first]!
      this.#first++
    }
    if (this.#first === this.#ends.length) this.#keepFrom(this.#first)
    else if (this.#first > 64 && 2 * this.#first > this.#ends.length) this.#keepFrom(this.#first)
  }

  #keepFrom(first: number): void {
    if (first === 0) return
    this.#ends = this.#ends.slice(first)
    this.#counts = this.#counts.slice(first)
    this.#first = 0
  }

  #joinNeighbours(): void {
    const ends: number[] = []
    const counts: number[] = []
    for (let i = this.#first; i < this.#ends.length; i += 2) {
      const last = Math.min(i + 1, this.#ends.length - 1)
      ends.push(this.#ends[last]!)
      counts.push(last === i ? this.#counts[i]! : this.#counts[i]! + this.#counts[last]!)
    }
    this.#ends = ends
    this.#counts = counts
    this.#first = 0
  }
}
