import type { Chain } from '../chain.js'
import { Fifo } from '../fifo.js'
import { SEQ_EOM, SEQ_EOR } from '../packet.js'

/** What a packet costs at least while it waits, in bytes: its bookkeeping here. A guest may send packets of one byte. */
const LEAST_COST = 256
const END_OF_MESSAGE = SEQ_EOM | SEQ_EOR

/** What a packet with so much payload costs the sender's allowance while it waits. */
export const packetCost = (length: number): number => Math.max(length, LEAST_COST)

interface Waiting {
  readonly payload: Uint8Array
  readonly flags: number
}

/** The payload of packets that wait for a guest's buffers, in their order. Two busy guests need not ever leave the queue empty. */
export class PacketQueue {
  /** Bytes that wait. */
  length = 0
  /** What all of it costs of the sender's allowance. */
  cost = 0
  readonly #packets = new Fifo<Waiting>()
  /** How much of the first packet has left. */
  #offset = 0

  /** Adds a packet's payload, at least one byte, and returns what it costs. */
  push(payload: Uint8Array, flags: number): number {
    const cost = packetCost(payload.length)
    this.#packets.push({ payload, flags })
    this.length += payload.length
    this.cost += cost
    return cost
  }

  /** Bytes and flags of the next packet of a message, which `moveTo` moves. A packet that is split has its flags in its last part. */
  nextMessagePart(room: number): { readonly length: number; readonly flags: number } {
    const { payload, flags } = this.#packets.first!
    const left = payload.length - this.#offset
    return left <= room ? { length: left, flags: flags & END_OF_MESSAGE } : { length: room, flags: 0 }
  }

  /**
   * Bytes of the next part of a stream, which `moveTo` moves: whole packets, as many as there is room for, or as much of one as there is room
   * for. The end of one packet and the beginning of the next are not put together. Linux counts a packet as unread until its last byte is
   * read: in its credit, and older kernels for SO_RCVLOWAT too. So the sums stay those that the sender's packets lead to.
   */
  nextStreamPart(room: number): number {
    let length = this.#packets.first!.payload.length - this.#offset
    if (length > room) return room
    for (let i = 1; i < this.#packets.size; i++) {
      const { payload } = this.#packets.at(i)!
      if (length + payload.length > room) break
      length += payload.length
    }
    return length
  }

  /** Moves the next `length` bytes into `chain` and returns what that frees of the sender's allowance. */
  moveTo(chain: Chain, length: number): number {
    let freed = 0
    for (let left = length; left > 0; ) {
      const { payload } = this.#packets.first!
      const part = Math.min(left, payload.length - this.#offset)
      chain.write(payload, this.#offset, part)
      left -= part
      this.#offset += part
      if (this.#offset < payload.length) break
      freed += packetCost(payload.length)
      this.#packets.shift()
      this.#offset = 0
    }
    this.length -= length
    this.cost -= freed
    return freed
  }

  /** Drops everything and returns what that frees. */
  drop(): number {
    const freed = this.cost
    this.#packets.clear()
    this.#offset = this.length = this.cost = 0
    return freed
  }
}
