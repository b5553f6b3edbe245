import type { Chain } from '../chain.js'
import { OutputQueue } from '../output-queue.js'
import { SEQ_EOM, SEQ_EOR } from '../packet.js'

/** What a packet costs at least while it waits, in bytes: its bookkeeping here. A guest may send packets of one byte. */
const LEAST_COST = 256
const END_OF_MESSAGE = SEQ_EOM | SEQ_EOR

interface Waiting {
  left: number
  readonly cost: number
  readonly flags: number
}

/** The payload of packets that wait for a guest's buffers, in their order. */
export class PacketQueue {
  /** What all of it costs of the sender's allowance. */
  cost = 0
  readonly #bytes = new OutputQueue()
  #packets: Waiting[] = []
  #first = 0

  /** Bytes that wait. */
  get length(): number {
    return this.#bytes.length
  }

  /** Adds a packet's payload, at least one byte, and returns what it costs. */
  push(payload: Uint8Array, flags: number): number {
    const cost = Math.max(payload.length, LEAST_COST)
    this.#bytes.push(payload)
    this.#packets.push({ left: payload.length, cost, flags })
    this.cost += cost
    return cost
  }

  /** Bytes and flags of the next packet of a message, which `moveTo` moves. A packet that is split has its flags in its last part. */
  nextMessagePart(room: number): { readonly length: number; readonly flags: number } {
    const { left, flags } = this.#packets[this.#first]!
    return left <= room ? { length: left, flags: flags & END_OF_MESSAGE } : { length: room, flags: 0 }
  }

  /** Moves the next `length` bytes into `chain` and returns what that frees of the sender's allowance. */
  moveTo(chain: Chain, length: number): number {
    this.#bytes.moveTo(chain, length)
    let freed = 0
    for (let left = length; left > 0; ) {
      const packet = this.#packets[this.#first]!
      const part = Math.min(left, packet.left)
      packet.left -= part
      left -= part
      if (packet.left > 0) break
      freed += packet.cost
      this.#first++
    }
    if (this.#first === this.#packets.length) {
      this.#packets = []
      this.#first = 0
    } else if (this.#first > 64 && 2 * this.#first > this.#packets.length) {
      this.#packets = this.#packets.slice(this.#first)
      this.#first = 0
    }
    this.cost -= freed
    return freed
  }

  /** Drops everything and returns what that frees. */
  drop(): number {
    const freed = this.cost
    this.#bytes.drop()
    this.#packets = []
    this.#first = this.cost = 0
    return freed
  }
}
