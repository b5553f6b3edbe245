import type { Duplex } from 'node:stream'
import { ignoreRejection, isPromise, show } from './check.js'

/** What a service may answer with. */
export type Replies = Iterable<Uint8Array> | AsyncIterable<Uint8Array>

/** What becomes of the replies, in the order in which it happens. */
export interface ReplyListener {
  /** The service makes the next reply, which takes time. */
  making(): void
  /** That reply is there. */
  made(): void
  /** The stream took a part of the replies after it had asked for a pause. */
  progress(): void
  /** The stream took the last reply and does not ask for a pause. */
  flushed(): void
  /** The service threw, rejected, or made a reply that is not bytes. The writer has stopped. */
  failed(error: unknown): void
  /** The service failed a second time, as the writer stopped: the first failure is the one that counts. */
  failedToStop(error: unknown): void
}

/**
 * Writes the replies to one chunk. It pulls a reply only when the client has taken the ones before, and when it stops, a generator
 * that makes them comes to its `finally`.
 */
export class ReplyWriter {
  readonly #stream: Duplex
  readonly #listener: ReplyListener
  readonly #next: () => unknown
  readonly #return: () => unknown
  readonly #async: boolean
  #state: 'pulling' | 'making' | 'paused' | 'over' = 'pulling'

  /** @throws What the iterable throws; TypeError if it gives no iterator. */
  constructor(replies: Replies, stream: Duplex, listener: ReplyListener) {
    this.#stream = stream
    this.#listener = listener
    const begin = asyncIteratorOf(replies)
    this.#async = begin !== undefined
    const iterator: unknown = begin === undefined ? (replies as Iterable<Uint8Array>)[Symbol.iterator]() : begin.call(replies)
    if (typeof iterator !== 'object' || iterator === null)
      throw new TypeError(`receive: must give an iterable of replies, got one whose iterator is ${show(iterator)}`)
    const { next } = iterator as Iterator<unknown>
    this.#next = () => next.call(iterator)
    this.#return = () => (iterator as Iterator<unknown>).return?.()
  }
}

function asyncIteratorOf(replies: Replies): (() => unknown) | undefined {
  return (replies as Partial<AsyncIterable<Uint8Array>>)[Symbol.asyncIterator]
}
