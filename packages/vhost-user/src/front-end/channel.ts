import { decodeMessageHeader, type FrontEndMessage, MESSAGE_HEADER_SIZE, type MessageHeader } from '../machine/message-format.js'
import type { Descriptor, FrontEndBinding } from '../native/binding.js'
import { encodeFrontEndMessage } from './message.js'

/** The back end has closed the socket. */
export class HungUpError extends Error {
  override readonly name = 'HungUpError'
}

export interface Reply {
  readonly header: MessageHeader
  readonly payload: Uint8Array
}

export interface SendOptions {
  /** Descriptors that travel with the message; the caller keeps its own. */
  readonly descriptors?: readonly Descriptor[]
  /** Asks for an acknowledgement of a message that has no reply of its own (REPLY_ACK). */
  readonly needReply?: boolean
}

/** A front end's side of a vhost-user socket: messages out, replies in. */
export class FrontEndChannel {
  readonly #binding: FrontEndBinding
  readonly #socket: Descriptor
  #received = Buffer.alloc(0)

  /** @param sockaddr of the back end's socket. Throws ECONNREFUSED or ENOENT if there is no listener. */
  constructor(binding: FrontEndBinding, sockaddr: Uint8Array) {
    this.#binding = binding
    this.#socket = binding.connect(sockaddr)
  }

  /** Sends without waiting for anything. */
  send(message: FrontEndMessage, { descriptors = [], needReply = false }: SendOptions = {}): void {
    this.sendBytes(encodeFrontEndMessage(message, { needReply }), descriptors)
  }

  /** Any bytes, whether or not they are a message. */
  sendBytes(bytes: Uint8Array, descriptors: readonly Descriptor[] = []): void {
    this.#binding.send(this.#socket, bytes, descriptors)
  }

  /** Sends and waits for the reply. One at a time. Throws `HungUpError`. */
  async ask(message: FrontEndMessage, options: SendOptions = {}): Promise<Reply> {
    this.send(message, options)
    const header = decodeMessageHeader(await this.#read(MESSAGE_HEADER_SIZE))
    return { header, payload: await this.#read(header.size) }
  }

  /** Resolves when the back end closes the socket. What it still says is dropped. */
  async hungUp(): Promise<void> {
    for (;;) {
      try {
        await this.#read(1)
      } catch {
        return
      }
    }
  }

  /** Idempotent. */
  close(): void {
    this.#binding.close(this.#socket)
  }

  async #read(size: number): Promise<Uint8Array> {
    while (this.#received.length < size) {
      const got = this.#binding.receive(this.#socket, 4096)
      if (got === undefined) await this.#readable()
      else if (got.bytes.length === 0) throw new HungUpError('the back end has closed the socket')
      else this.#received = Buffer.concat([this.#received, got.bytes])
    }
    const bytes = this.#received.subarray(0, size)
    this.#received = this.#received.subarray(size)
    return bytes
  }

  async #readable(): Promise<void> {
    await new Promise<void>((resolve) => this.#binding.watch(this.#socket, this.#binding.READABLE, () => resolve()))
    this.#binding.unwatch(this.#socket)
  }
}
