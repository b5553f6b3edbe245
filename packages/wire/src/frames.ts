import { copyOf } from './bytes.js'
import { MESSAGE_SIZE } from './constants.js'
import { WireError } from './error.js'

/** Cuts a stream into messages of one fixed size, however the stream was chunked. It never holds more than one unfinished message. */
export class FrameDecoder {
  /** Bytes in a message. */
  readonly size: number
  #partial: Uint8Array
  #pending = 0

  /** @param size - Bytes in a message, default 1024. */
  constructor(size: number = MESSAGE_SIZE) {
    if (!Number.isInteger(size) || size < 1) throw new WireError('ARGUMENT', 'size', `must be a positive integer, got ${size}`)
    this.size = size
    this.#partial = new Uint8Array(size)
  }

  /** Bytes of an unfinished message that wait for the rest, 0 … size − 1. At the end of a stream anything but 0 means it was cut off. */
  get pending(): number {
    return this.#pending
  }

  /**
   * Takes the next chunk, of any length.
   *
   * @returns The messages that it completes, in order. Each is a copy: neither the chunk nor a later call changes it.
   */
  push(chunk: Uint8Array): Uint8Array[] {
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
