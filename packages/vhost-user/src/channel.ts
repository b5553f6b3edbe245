import { protocolError } from './machine/errors.js'
import { decodeMessageHeader, MAX_REGIONS, MESSAGE_HEADER_SIZE, type MessageHeader } from './machine/message-format.js'
import type { Binding, Descriptor } from './native/binding.js'

export interface ChannelHandlers {
  /** One whole message with its descriptors, which now belong to the callee. The result is sent back. */
  readonly onMessage: (header: MessageHeader, payload: Uint8Array, descriptors: Descriptor[]) => Uint8Array | undefined
  /** The front end has gone, or the conversation broke; the channel is closed. Called once, and not after `close`. */
  readonly onEnd: (error: unknown) => void
}

/** Messages handled in one go before other work gets its turn. */
const BATCH = 32

/**
 * The vhost-user socket as messages. Reads never go past the end of a message: the kernel hands descriptors over with the bytes
 * that they came with, so a read of exactly one header gets the descriptors of that message alone.
 */
export class Channel {
  readonly #binding: Binding
  readonly #descriptor: Descriptor
  readonly #handlers: ChannelHandlers
  #closed = false
  #header: MessageHeader | undefined
  #buffer = new Uint8Array(MESSAGE_HEADER_SIZE)
  #filled = 0
  #descriptors: Descriptor[] = []
  #unsent: Uint8Array | undefined

  constructor(binding: Binding, descriptor: Descriptor, handlers: ChannelHandlers) {
    this.#binding = binding
    this.#descriptor = descriptor
    this.#handlers = handlers
    this.#watch()
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true
    for (const descriptor of this.#descriptors.splice(0)) this.#binding.close(descriptor)
    this.#binding.close(this.#descriptor)
  }

  /** While a reply waits to be sent no further message is read: a front end that does not read cannot make us buffer. */
  #watch(): void {
    if (this.#closed) return
    const events = this.#unsent === undefined ? this.#binding.READABLE : this.#binding.WRITABLE
    this.#binding.watch(this.#descriptor, events, () => this.#onReady())
  }

  #onReady(): void {
    try {
      const waiting = this.#unsent !== undefined
      if (!this.#flush()) return
      if (waiting) this.#watch()
      for (let i = 0; i < BATCH && !this.#closed; ) {
        const got = this.#fill()
        if (got === 'later') return
        if (got === 'end') {
          this.#end(undefined)
          return
        }
        if (got === 'message') {
          i++
          if (!this.#deliver()) {
            this.#watch()
            return
          }
        }
      }
    } catch (error) {
      this.#end(error)
    }
  }

  #fill(): 'later' | 'end' | 'part' | 'message' {
    const wanted = this.#buffer.length - this.#filled
    if (wanted > 0) {
      const received = this.#binding.receive(this.#descriptor, wanted)
      if (received === undefined) return 'later'
      this.#descriptors.push(...received.descriptors)
      if (this.#descriptors.length > MAX_REGIONS) {
        throw protocolError('message', `there are more than ${MAX_REGIONS} descriptors beside it`)
      }
      if (received.bytes.length === 0) {
        if (this.#filled === 0 && this.#header === undefined) return 'end'
        throw protocolError('message', 'the front end closed the socket in the middle of it')
      }
      this.#buffer.set(received.bytes, this.#filled)
      this.#filled += received.bytes.length
      if (this.#filled < this.#buffer.length) return 'part'
    }
    if (this.#header !== undefined) return 'message'
    this.#header = decodeMessageHeader(this.#buffer)
    this.#buffer = new Uint8Array(this.#header.size)
    this.#filled = 0
    return this.#header.size === 0 ? 'message' : 'part'
  }

  /** Hands the message on and sends the reply; false if that has to wait. */
  #deliver(): boolean {
    const header = this.#header!
    const payload = this.#buffer
    this.#header = undefined
    this.#buffer = new Uint8Array(MESSAGE_HEADER_SIZE)
    this.#filled = 0
    const reply = this.#handlers.onMessage(header, payload, this.#descriptors.splice(0))
    if (reply === undefined || this.#closed) return true
    this.#unsent = reply
    return this.#flush()
  }

  #flush(): boolean {
    while (this.#unsent !== undefined) {
      const sent = this.#binding.send(this.#descriptor, this.#unsent, [])
      if (sent === undefined) return false
      this.#unsent = sent === this.#unsent.length ? undefined : this.#unsent.subarray(sent)
    }
    return true
  }

  #end(error: unknown): void {
    if (this.#closed) return
    this.close()
    this.#handlers.onEnd(error)
  }
}
