import type { Chain } from './chain.js'
import { Fifo } from './fifo.js'
import { type PacketHeader, SEQ_EOM, SEQ_EOR } from './packet.js'

/**
 * Where a message for the guest is: it waits; a part of it has left; all of it is in guest buffers; the guest takes no more; or the guest's
 * buffer has become smaller than the message.
 */
export type MessageState = 'waiting' | 'begun' | 'sent' | 'lost' | 'too long'

/** A message for the guest. The queue changes its state. */
export interface OutgoingMessage {
  /** Not copied before a guest buffer takes it. Another array with the same bytes may take its place. */
  data: Uint8Array
  readonly eor: boolean
  state: MessageState
}

/** Messages for the guest that wait for its buffers. */
export class MessageQueue {
  /** Messages were dropped because the guest takes no more. */
  lost = false
  /** Bytes that wait. */
  length = 0
  #messages = new Fifo<OutgoingMessage>()
  /** How much of the oldest message has left. */
  #offset = 0

  push(message: OutgoingMessage): void {
    this.#messages.push(message)
    this.length += message.data.length
  }

  /** How many bytes may share a packet: what has not left of the oldest message. */
  get run(): number {
    const message = this.#messages.first
    return message === undefined ? 0 : message.data.length - this.#offset
  }

  /** The flags of a packet with the next `length` bytes. */
  flags(length: number): number {
    if (length < this.run) return 0
    return this.#messages.first!.eor ? SEQ_EOM | SEQ_EOR : SEQ_EOM
  }

  /** Says of the next packet how many bytes it has, at most `most`, and whether they end a message, which is the result, too. */
  describe(header: PacketHeader, most: number): boolean {
    header.length = Math.min(most, this.run)
    header.flags = this.flags(header.length)
    return header.flags !== 0
  }

  /** Moves the next `length` bytes, at most `run`, into `chain`. True if they end a message. */
  moveTo(chain: Chain, length: number): boolean {
    const message = this.#messages.first!
    chain.write(message.data, this.#offset, length)
    this.length -= length
    this.#offset += length
    if (this.#offset < message.data.length) {
      message.state = 'begun'
      return false
    }
    message.state = 'sent'
    this.#offset = 0
    this.#messages.shift()
    return true
  }

  /** Takes a message back of which nothing has left. */
  withdraw(message: OutgoingMessage): void {
    if (message.state === 'waiting' && this.#messages.delete(message)) this.length -= message.data.length
  }

  /**
   * The guest's buffer has become smaller. Messages longer than `limit` leave the queue. False if one of them is under way: the guest can
   * never have the rest.
   */
  shrink(limit: number): boolean {
    const waiting = this.#messages
    const { first } = waiting
    if (first?.state === 'begun' && first.data.length > limit) {
      this.drop()
      return false
    }
    this.#messages = new Fifo()
    for (const message of waiting) {
      if (message.data.length <= limit) this.#messages.push(message)
      else {
        message.state = 'too long'
        this.length -= message.data.length
      }
    }
    return true
  }

  /** Drops what waits. If that is anything, it is lost. */
  drop(): void {
    for (const message of this.#messages) message.state = 'lost'
    if (this.length > 0) this.lost = true
    this.#messages.clear()
    this.#offset = this.length = 0
  }
}
