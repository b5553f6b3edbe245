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

/** The packets that were sent and that the guest has not taken yet. Counters are 32 bits wide and wrap. */
export class PacketWindow {
  /** Where each packet ends in the count of bytes sent; those before `#first` have been taken. */
  #ends: number[] = []
  #first = 0

  get size(): number {
    return this.#ends.length - this.#first
  }

  /** A packet went out; it ends at this count of bytes sent. */
  add(end: number): void {
    this.#ends.push(end)
  }

  /** The guest has taken all bytes up to this count. */
  taken(count: number): void {
    while (this.#first < this.#ends.length && ((count - this.#ends[this.#first]!) | 0) >= 0) this.#first++
    if (this.#first === this.#ends.length) {
      if (this.#first === 0) return
      this.#ends = []
      this.#first = 0
    } else if (this.#first > 64 && 2 * this.#first > this.#ends.length) {
      this.#ends = this.#ends.slice(this.#first)
      this.#first = 0
    }
  }
}
