/**
 * What the client has to know of a service that it talks to. A service is a value: the client knows no service of its own, and takes
 * another one without a change. The members are checked when a client is made. None of the functions may return a promise.
 */
export interface Service<Req, Rep> {
  /** The byte that chooses the service, the first one sent on every connection. */
  readonly byte: number
  /** Bytes in every message of the service, in both directions, from 1 to 2^30. Default 1024. */
  readonly messageSize?: number | undefined
  /** Checks the message with which the service greets. Throws if it is another message. */
  checkGreeting(frame: Uint8Array): void
  /**
   * Writes a request.
   *
   * @param into - A new buffer of `messageSize` bytes.
   * @returns What to send, `messageSize` bytes, usually `into`. It is sent in one write: the kernel takes a short read for a whole message.
   * @throws If the request is invalid. The request then rejects with this error and is never queued.
   */
  encode(request: Req, into: Uint8Array): Uint8Array
  /** Reads the reply to `request`, which may be any value but undefined. Throws if the frame is not a valid reply to it. */
  decode(frame: Uint8Array, request: Req): Rep
  /** Whether the guest refused. A connection with a failed reply is no longer clean. */
  failed(reply: Rep): boolean
  /** Whether the request may only be sent on a connection without a failed reply before it. Default: never. */
  needsCleanChannel?(request: Req): boolean
  /** How long the reply may take, in milliseconds from the write: above 0, and finite. */
  replyTimeoutMs(request: Req): number
  /** The request in a few words, for errors: `ADD_MMIO 0xd0000000+0x1000 irq 5`. Default: `request`. */
  describe?(request: Req): string
}
