import type { Disconnect } from './end.js'

/** One accepted connection. Each variant holds what that state needs and nothing else. Deadlines are absolute. */
export type State =
  /** A client has connected and has not named a service. */
  | { readonly kind: 'Selecting'; readonly deadline: number }
  /** The service byte is read, and the driver looks the service up. `rest` came after the byte and belongs to the service. */
  | { readonly kind: 'Opening'; readonly rest: Uint8Array }
  /** The greeting is written, and the client has not taken it. */
  | { readonly kind: 'Greeting'; readonly rest: Uint8Array; readonly deadline: number }
  /** The service waits for bytes. */
  | { readonly kind: 'Reading' }
  /** The service has a chunk. Nothing is read meanwhile: the kernel has one thread per connection. */
  | { readonly kind: 'Handling' }
  /** The service makes the next of its replies. The client has taken those before. */
  | { readonly kind: 'Replying' }
  /** A reply is written, and the client has not taken it. Nothing is read meanwhile. */
  | { readonly kind: 'Writing'; readonly deadline: number }
  /** Nothing more is read or answered. What is written is sent, then the stream is closed. */
  | { readonly kind: 'Ending'; readonly end: Disconnect; readonly deadline: number }
  | { readonly kind: 'Ended'; readonly end: Disconnect }

export type Kind = State['kind']
export type In<K extends Kind> = Extract<State, { kind: K }>
