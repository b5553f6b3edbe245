/** What a service is told of a connection when it takes it over. */
export interface GuestConnection {
  /** Counts the server's connections, from 1. */
  readonly id: number
  /** Who is at the other end, for messages; empty if nobody knows. */
  readonly remote: string
  /** Resolves `ms` from now on the server's clock, 0 … 2^31 − 1; rejects when the connection ends first, and with RangeError for another time. */
  delay(ms: number): Promise<void>
}

/**
 * One connection as its service sees it. Chunks arrive as they were read: nothing frames them here, because the kernel's services
 * do not agree on how. Each session picks `FrameDecoder`, or takes a chunk for a message as the kernel's device manager does.
 */
export interface GuestSession {
  /** What to send first; may be empty. */
  readonly greeting: Uint8Array
  /**
   * Takes one chunk.
   *
   * @param now - Milliseconds on the server's clock.
   * @returns What to send, in order; an iterator's `return` is called if the connection ends before. A promise where that takes time: nothing more is read from this connection until it
   * settles, as with the kernel's one thread per connection; a rejection ends the connection.
   */
  receive(chunk: Uint8Array, now: number): Iterable<Uint8Array> | Promise<Iterable<Uint8Array>>
  /** The connection is gone. Called exactly once. */
  close(): void
}

/** A service that a guest offers, chosen by the first byte that a client sends. One that throws ends its connection, and nothing else. */
export interface GuestService {
  /** 0 … 255. */
  readonly byte: number
  /** False while the service is not registered yet: a connection is accepted and closed, as early in a guest's boot. Default: always true. */
  available?(now: number): boolean
  /** Called once for each connection. What it returns is checked at once; what is none ends the connection with `service-error`. */
  open(connection: GuestConnection): GuestSession
}
