/** What a service is told of a connection when it takes it over. */
export interface GuestConnection {
  /** The server numbers its connections from 1. */
  readonly id: number
  /** The other end, for messages; empty if it is unknown. */
  readonly remote: string
  /**
   * Resolves `ms` from now on the server's clock, from 0 to 2^31 − 1.
   *
   * @throws {@link ConnectionEndedError} if the connection ends first; RangeError for another time.
   */
  delay(ms: number): Promise<void>
}

/** The replies to one chunk, in order. Each is an array that the service does not write to again. */
export type Replies = Iterable<Uint8Array> | AsyncIterable<Uint8Array>

/**
 * One connection as its service sees it. Chunks arrive as they were read. The server frames nothing, because the kernel's services
 * do not agree on how: a session uses `FrameDecoder`, or takes a chunk for a message as the kernel's device manager does.
 */
export interface GuestSession {
  /** What to send first; may be empty. */
  readonly greeting: Uint8Array
  /**
   * Takes one chunk.
   *
   * @param now - Milliseconds on the server's clock.
   * @returns What to send: an iterable or an async iterable, for instance a generator of either kind, or a promise of one. Replies are
   * pulled one by one, each when the client has taken the one before. Nothing more is read from this connection until the last one is
   * taken, as with the kernel's one thread per connection. If the connection ends before, the iterator's `return` is called. A throw
   * or a rejection ends the connection.
   */
  receive(chunk: Uint8Array, now: number): Replies | Promise<Replies>
  /** The connection has ended. Called exactly once. */
  close(): void
}

/** A service that a guest offers, chosen by the first byte that a client sends. A service that throws ends its connection and nothing else. */
export interface GuestService {
  /** From 0 to 255. */
  readonly byte: number
  /** False while the service is not registered yet: a connection is accepted and closed, as early in a guest's boot. Default: always true. */
  available?(now: number): boolean
  /** Called once for each connection. A return value that is not a session ends the connection with `service-error`. */
  open(connection: GuestConnection): GuestSession
}
