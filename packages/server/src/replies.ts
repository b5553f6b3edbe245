import { ignoreRejection, isPromise } from '@upcall/foundation/returned'
import { show } from '@upcall/foundation/show'

/** The next reply; undefined after the last one. */
export type Next = Uint8Array | undefined

/** The replies to one chunk, as they are pulled one by one from what the service returned: an iterable or an async iterable. */
export class ReplySource {
  readonly #iterator: Partial<Iterator<unknown>>
  readonly #async: boolean

  private constructor(iterator: object, isAsync: boolean) {
    this.#iterator = iterator
    this.#async = isAsync
  }

  /** @throws What the value throws when it is looked at; TypeError if it is not an iterable. */
  static of(this: void, replies: unknown): ReplySource {
    if (typeof replies !== 'object' || replies === null) throw notReplies(show(replies))
    const { [Symbol.asyncIterator]: later, [Symbol.iterator]: now } = replies as Partial<
      AsyncIterable<unknown> & Iterable<unknown>
    >
    const begin: unknown = later ?? now
    if (typeof begin !== 'function') throw notReplies(show(replies))
    const iterator: unknown = begin.call(replies)
    if (typeof iterator !== 'object' || iterator === null) throw notReplies(`one whose iterator is ${show(iterator)}`)
    return new ReplySource(iterator, later !== undefined)
  }

  /** @throws What the service throws; TypeError if it makes a reply that is not bytes. Rejects in the same way. */
  next(): Next | Promise<Next> {
    const result: unknown = this.#iterator.next!()
    if (!this.#async) return replyOf(result)
    return isPromise(result) ? Promise.resolve(result).then(replyOf) : replyOf(result)
  }

  /**
   * No more replies are wanted: a generator that makes them runs its `finally`.
   *
   * @throws What the service throws. `onRejection`: it rejected later.
   */
  stop(onRejection: (error: unknown) => void): void {
    const stopped: unknown = this.#iterator.return?.()
    if (isPromise(stopped)) Promise.resolve(stopped).catch(onRejection)
  }
}

function notReplies(what: string): TypeError {
  return new TypeError(`receive: must return an iterable of replies, got ${what}`)
}

function replyOf(result: unknown): Next {
  ignoreRejection(result)
  if (typeof result !== 'object' || result === null || isPromise(result))
    throw new TypeError(`reply: an iterator must return { done, value }, got ${show(result)}`)
  const { done, value } = result as IteratorResult<unknown>
  if (done === true) return undefined
  if (!(value instanceof Uint8Array)) throw new TypeError(`reply: must be a Uint8Array, got ${show(value)}`)
  return value
}
