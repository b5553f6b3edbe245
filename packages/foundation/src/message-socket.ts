// What a socket that keeps message boundaries (SOCK_SEQPACKET) looks like, whichever package it comes from. Types only.

/** One message as it was received. */
export interface Message {
  /** Its bytes. They belong to the receiver. */
  readonly data: Uint8Array
  /** The sender ended a record with it (`MSG_EOR`). */
  readonly eor: boolean
  /** How many bytes were sent. More than `data` has: the receiver's buffer was too small, and the rest is lost (`MSG_TRUNC`). */
  readonly sentBytes: number
}

export interface SendOptions {
  /** Ends a record with this message (`MSG_EOR`). Default false. */
  readonly eor?: boolean | undefined
  /** Gives the message up. It is not sent unless a part of it has left. */
  readonly signal?: AbortSignal | undefined
}

export interface ReceiveOptions {
  /** Gives the wait up. No message is lost by it. */
  readonly signal?: AbortSignal | undefined
}

/**
 * A connected socket that carries messages, both ways. It is half-open: each direction ends by itself.
 *
 * **Iteration** yields the `data` of each message up to the peer's end. It throws as `receive` rejects, and with `EMSGSIZE` for a message
 * that was cut. Leaving the loop leaves the socket as it is.
 *
 * **The end.** The socket closes by itself when both directions have ended, when it fails, and when a message can neither come nor go any
 * more. `closed` resolves then.
 *
 * Errors have a `code`: `EMSGSIZE` (too long for the peer or for this side), `EPIPE` (the peer takes no more, or `end` was called),
 * `ECONNRESET` (cut short), `ABORTED` (the signal, with its reason as `cause`, or `destroy`), and what else the transport tells.
 */
export interface MessageSocket extends AsyncIterable<Uint8Array> {
  /** The longest message that `send` takes now, in bytes. It may change while the socket is open. */
  readonly maxMessageBytes: number
  /** Resolves when the socket is closed, in whatever way. It never rejects. */
  readonly closed: Promise<void>
  /** The error that the socket was closed by; null if there was none. */
  readonly errored: Error | null

  /**
   * Sends one message of 1 byte or more. Resolves when the transport has taken all of it (backpressure). Messages leave in the order of
   * the calls. `data` is not copied: leave it alone until the promise settles.
   *
   * A rejection leaves the receiving half alone. An empty message is a `RangeError`: a receiver could not tell it from the end.
   */
  send(data: Uint8Array, options?: SendOptions): Promise<void>

  /** The next message; undefined after the last one. Calls that wait are served in their order. */
  receive(options?: ReceiveOptions): Promise<Message | undefined>

  /** No more messages will be sent: the peer sees the end after those that were given to `send`. Idempotent. */
  end(): void

  /**
   * Closes at once. The peer has an orderly end if every `send` has resolved; without that, and always with an `error`, it is reset where
   * the transport can do so. Everything that waits rejects with `ABORTED`, or with `error`. Idempotent.
   */
  destroy(error?: Error): void
}
