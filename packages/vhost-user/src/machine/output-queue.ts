import type { Chain } from './chain.js'
import { Fifo } from './fifo.js'
import type { PacketHeader } from './packet.js'

/** Bytes for the guest that wait for one of its buffers. Chunks are not copied before that, so they belong to the queue until it is empty. */
export class OutputQueue {
  /** Bytes were dropped because the guest takes no more: it has shut its receiving half, or is gone. */
  lost = false
  /** Bytes that wait. */
  length = 0
  readonly #chunks = new Fifo<Uint8Array>()
  /** How much of the oldest chunk has left. */
  #offset = 0

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.length += chunk.length
  }

  /** Says of the next packet how many bytes it has, at most `most`. The result: a reader can take it by itself. */
  describe(header: PacketHeader, most: number): boolean {
    header.length = Math.min(most, this.length)
    return true
  }

  /** Moves the next `length` bytes into `chain`. */
  moveTo(chain: Chain, length: number): void {
    let left = length
    while (left > 0) {
      const chunk = this.#chunks.first!
      const n = Math.min(left, chunk.length - this.#offset)
      chain.write(chunk, this.#offset, n)
      left -= n
      this.#offset += n
      if (this.#offset === chunk.length) {
        this.#chunks.shift()
        this.#offset = 0
      }
    }
    this.length -= length
  }

  /** Drops what waits. If that is anything, it is lost. */
  drop(): void {
    if (this.length > 0) this.lost = true
    this.#chunks.clear()
    this.#offset = this.length = 0
  }
}
