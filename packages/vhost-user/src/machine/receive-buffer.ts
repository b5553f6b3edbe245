import type { Chain } from './chain.js'

/** Makes room for received bytes. The contents need not be cleared: every byte is written before it can be seen. */
export type Allocate = (size: number) => Uint8Array

const BLOCK_SIZE = 4096

interface Block {
  readonly bytes: Uint8Array
  used: number
}

/**
 * Bytes from the guest that wait for their reader. What they cost is bounded by bytes, not by packets: a guest that sends its
 * whole credit in packets of one byte fills blocks of 4 KiB, not one object each.
 */
export class ReceiveBuffer {
  #blocks: Block[] = []
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
    const last = this.#blocks.at(-1)
    if (last !== undefined && last.bytes.length - last.used >= length) {
      chain.read(last.bytes, last.used, length)
      last.used += length
    } else {
      // A reader that keeps up gets blocks of exactly the packet's size. After a backlog, small packets share a block.
      const bytes = this.#allocate(last === undefined ? length : Math.max(length, BLOCK_SIZE))
      chain.read(bytes, 0, length)
      this.#blocks.push({ bytes, used: length })
    }
    this.#length += length
  }

  /** The oldest bytes, for good; undefined when there are none. */
  take(): Uint8Array | undefined {
    const block = this.#blocks.shift()
    if (block === undefined) return undefined
    this.#length -= block.used
    return block.used === block.bytes.length ? block.bytes : block.bytes.subarray(0, block.used)
  }

  clear(): void {
    this.#blocks = []
    this.#length = 0
  }
}
