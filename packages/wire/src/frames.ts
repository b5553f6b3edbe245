import { show } from '@upcall/foundation/show'
import { copyOf } from './bytes.js'
import { integer } from './check.js'
import { MESSAGE_SIZE } from './constants.js'
import { WireError } from './error.js'

/** More than any message needs, and less than a buffer can hold. */
const MAX_SIZE = 2 ** 30

/** Cuts a stream into messages of one fixed size, however the stream was chunked. It never holds more than one unfinished message. */
export class FrameDecoder {
  /** Bytes in a message. */
  readonly size: number
  #partial: Uint8Array
  #pending = 0

  /**
   * @param size - Bytes in a message, from 1 to 2^30. Default 1024.
   * @throws {@link WireError} `ARGUMENT` for another size.
   */
  constructor(size: number = MESSAGE_SIZE) {
    this.size = integer(size, 'size', 1, MAX_SIZE)
    this.#partial = new Uint8Array(size)
  }

  /** Bytes of an unfinished message that wait for the rest, from 0 to size − 1. More than 0 at the end of a stream: it was cut off. */
  get pending(): number {
    return this.#pending
  }

  /**
   * Takes the next chunk, of any length.
   *
   * @returns The messages that it completes, in order. Each is a copy: neither the chunk nor a later call changes it.
   * @throws {@link WireError} `ARGUMENT` if the chunk is not a Uint8Array.
   */
  push(chunk: Uint8Array): Uint8Array[] {
    if (!(chunk instanceof Uint8Array)) throw new WireError('ARGUMENT', 'chunk', `must be a Uint8Array, got ${show(chunk)}`)
    const frames: Uint8Array[] = []
    let at = 0
    while (at < chunk.length) {
      if (this.#pending === 0 && chunk.length - at >= this.size) {
        frames.push(copyOf(chunk, at, at + this.size))
        at += this.size
        continue
      }
      const piece = chunk.subarray(at, at + this.size - this.#pending)
      this.#partial.set(piece, this.#pending)
      this.#pending += piece.length
      at += piece.length
      if (this.#pending === this.size) {
        frames.push(this.#partial)
        this.#partial = new Uint8Array(this.size)
        this.#pending = 0
      }
    }
    return frames
  }
}
