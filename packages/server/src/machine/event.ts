import type { Disconnect } from './end.js'

/** Everything that can happen to a connection. */
export type ConnectionEvent =
  /** Zero or more bytes were read. */
  | { readonly type: 'chunk'; readonly chunk: Uint8Array }
  /** The client ended its half. It is read as a chunk is: after the bytes before it are answered. */
  | { readonly type: 'eof' }
  | { readonly type: 'opened'; readonly greeting: Uint8Array }
  | { readonly type: 'refused'; readonly end: Disconnect }
  /** The service has taken the chunk, and its replies can be asked for. */
  | { readonly type: 'answered' }
  /** The next reply. */
  | { readonly type: 'reply'; readonly bytes: Uint8Array }
  /** There are no more replies to the chunk. */
  | { readonly type: 'replied' }
  /** The service failed. */
  | { readonly type: 'failed'; readonly error: unknown }
  /** The stream has taken what was written, and does not ask for a pause. */
  | { readonly type: 'taken' }
  /** Everything that was written is sent, and the stream's writable side has ended. */
  | { readonly type: 'finished' }
  /** Time has passed. Harmless if nothing is due. */
  | { readonly type: 'wake' }
  /** The server ends the connection. */
  | { readonly type: 'stop'; readonly end: Disconnect }
  | { readonly type: 'error'; readonly error: unknown }
  /** The stream has closed. */
  | { readonly type: 'closed' }

export type EventType = ConnectionEvent['type']
export type EventOf<E extends EventType> = Extract<ConnectionEvent, { type: E }>

/** Everything that a connection asks of its driver, in order. */
export type Effect =
  /** Look the service up and open it. The answer is `opened`, `refused` or `failed`. */
  | { readonly type: 'open'; readonly byte: number }
  /** Give the chunk to the service. The answer is `answered` or `failed`. */
  | { readonly type: 'receive'; readonly chunk: Uint8Array }
  /** Ask the service for the next reply. The answer is `reply`, `replied` or `failed`. */
  | { readonly type: 'next' }
  /** Write. The answer is `taken`, at once or when the stream no longer asks for a pause. */
  | { readonly type: 'write'; readonly bytes: Uint8Array }
  /** End the writable side. The answer is `finished`. */
  | { readonly type: 'end' }
  /** Destroy the stream. `closed` follows. */
  | { readonly type: 'destroy' }
