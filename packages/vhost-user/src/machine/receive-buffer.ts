import { type Allocate, type Block, store } from './blocks.js'
import type { Chain } from './chain.js'
import { Fifo } from './fifo.js'

/**
 * Bytes from the guest that wait for their reader. What they cost is bounded by bytes, not by packets: a guest that sends its
 * whole credit in packets of one byte fills blocks of 4 KiB, not one object each.
 */
export class ReceiveBuffer {
  readonly #blocks = new Fifo<Block>()
  #length = 0
  readonly #allocate: Allocate

  constructor(allocate: Allocate) {
    this.#allocate = allocate
  }

  get length(): number {
    return this.#length
  }

  /** Takes the next `length` readable bytes of `chain`. */
  append(chain: Chain, length: number): void {
    store(this.#blocks, chain, length, this.#allocate)
    this.#length += length
  }

  /** The oldest bytes, for good; undefined when there are none. */
  take(): Uint8Array | undefined {
    const block = this.#blocks.first
    if (block === undefined) return undefined
    this.#blocks.shift()
    this.#length -= block.used
    return block.used === block.bytes.length ? block.bytes : block.bytes.subarray(0, block.used)
  }

  clear(): void {
    this.#blocks.clear()
    this.#length = 0
  }
}
