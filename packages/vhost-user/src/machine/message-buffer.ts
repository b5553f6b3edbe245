import { type Allocate, type Block, store } from './blocks.js'
import type { Chain } from './chain.js'
import { Fifo } from './fifo.js'
import { NumberQueue } from './number-queue.js'
import { SEQ_EOM, SEQ_EOR } from './packet.js'

/** A message of the guest. */
export interface ReceivedMessage {
  readonly data: Uint8Array
  /** The guest's `MSG_EOR`. */
  readonly eor: boolean
}

/**
 * Messages from the guest that wait for their reader, and the beginning of the next, which is still coming. What they cost is bounded by their
 * bytes: small packets share blocks, and where a message ends is a number of one byte for a message of less than 64.
 */
export class MessageBuffer {
  /** Messages that are complete. */
  get count(): number {
    return this.#ends.length
  }
  /** Bytes of all messages, the unfinished one included. */
  length = 0
  /** Bytes of the message that is still coming. */
  unfinished = 0

  /** The length of each complete message, doubled, and 1 more for MSG_EOR. */
  readonly #ends = new NumberQueue()
  readonly #blocks = new Fifo<Block>()
  /** How much of the oldest block has been taken. */
  #offset = 0
  readonly #allocate: Allocate

  constructor(allocate: Allocate) {
    this.#allocate = allocate
  }

  /**
   * Takes the next `length` readable bytes of `chain`, and the flags of their packet. A message without a byte is dropped: Linux sends none,
   * its readers would take it for the end, and no credit bounds how many come.
   */
  append(chain: Chain, length: number, flags: number): void {
    if (length > 0) {
      store(this.#blocks, chain, length, this.#allocate)
      this.length += length
      this.unfinished += length
    }
    if ((flags & SEQ_EOM) === 0 || this.unfinished === 0) return
    this.#ends.push(2 * this.unfinished + ((flags & SEQ_EOR) === 0 ? 0 : 1))
    this.unfinished = 0
  }

  /** The oldest complete message, for good; undefined when there is none. */
  take(): ReceivedMessage | undefined {
    if (this.#ends.length === 0) return undefined
    const end = this.#ends.shift()
    const data = this.#takeBytes(Math.floor(end / 2))
    return { data, eor: end % 2 === 1 }
  }

  /** The rest of the unfinished message never comes. Returns how many bytes of it were here. */
  dropUnfinished(): number {
    const dropped = this.unfinished
    let left = dropped
    for (let last = this.#blocks.last; left > 0 && last !== undefined; last = this.#blocks.last) {
      const count = Math.min(left, last.used)
      last.used -= count
      left -= count
      if (last.used === 0) this.#blocks.pop()
    }
    this.length -= dropped
    this.unfinished = 0
    return dropped
  }

  clear(): void {
    this.#blocks.clear()
    this.#ends.clear()
    this.length = this.unfinished = this.#offset = 0
  }

  #takeBytes(length: number): Uint8Array {
    this.length -= length
    const first = this.#blocks.first!
    if (this.#offset === 0 && first.used === length && first.bytes.length === length) {
      this.#blocks.shift()
      return first.bytes
    }
    const data = this.#allocate(length)
    for (let at = 0; at < length; ) {
      const { bytes, used } = this.#blocks.first!
      const count = Math.min(length - at, used - this.#offset)
      data.set(bytes.subarray(this.#offset, this.#offset + count), at)
      at += count
      this.#offset += count
      if (this.#offset < used) break
      this.#blocks.shift()
      this.#offset = 0
    }
    return data
  }
}
