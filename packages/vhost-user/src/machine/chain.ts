import { guestError } from './errors.js'
import type { Pieces } from './pieces.js'

/**
 * The buffers of one descriptor chain as pieces of guest memory, with a cursor for each direction. One object is used over and
 * over: a chain costs no allocation.
 *
 * Every byte is copied once: the guest cannot change what has been read here.
 */
export class Chain {
  /** Number of the chain's first descriptor, which goes back into the used ring. */
  head = 0
  /** Bytes that the device may read and write, over the whole chain. */
  readable = 0
  writable = 0
  /** Descriptors visited: what the chain cost, however few bytes it holds. */
  descriptors = 0
  /** Bytes that were put after the header, where it is the kernel that has put them there. */
  filled = 0

  readonly #windows: Uint8Array[] = []
  readonly #starts: number[] = []
  readonly #lengths: number[] = []
  #count = 0
  /** The piece at which the writable ones begin. */
  #boundary = 0
  #readPiece = 0
  #readOffset = 0
  #writePiece = 0
  #writeOffset = 0

  /** Forgets the previous chain. */
  begin(head: number): void {
    this.head = head
    this.readable = this.writable = this.descriptors = 0
    this.#windows.length = 0
    this.#count = this.#boundary = 0
    this.#readPiece = this.#readOffset = this.#writePiece = this.#writeOffset = 0
  }

  /** Adds `length` bytes of `window` from `start`. The caller has checked the bounds. */
  append(window: Uint8Array, start: number, length: number, writable: boolean): void {
    const at = this.#count++
    this.#windows[at] = window
    this.#starts[at] = start
    this.#lengths[at] = length
    if (writable) {
      this.writable += length
    } else {
      this.readable += length
      this.#boundary = this.#writePiece = this.#count
    }
  }

  /** Copies the next `length` readable bytes into `target` at `at`. */
  read(target: Uint8Array, at: number, length: number): void {
    let left = length
    let to = at
    while (left > 0) {
      if (this.#readPiece >= this.#boundary)
        throw guestError('CHAIN_TOO_SHORT', `descriptor chain ${this.head}`, `it ends ${left} bytes early`)
      const n = Math.min(left, this.#lengths[this.#readPiece]! - this.#readOffset)
      const from = this.#starts[this.#readPiece]! + this.#readOffset
      copy(this.#windows[this.#readPiece]!, from, target, to, n)
      left -= n
      to += n
      this.#readOffset += n
      if (this.#readOffset === this.#lengths[this.#readPiece]) {
        this.#readPiece++
        this.#readOffset = 0
      }
    }
  }

  /** A copy of the next `length` readable bytes, which are there. The cursor stays. */
  ahead(length: number): Uint8Array {
    const [piece, offset] = [this.#readPiece, this.#readOffset]
    const bytes = new Uint8Array(length)
    this.read(bytes, 0, length)
    this.#readPiece = piece
    this.#readOffset = offset
    return bytes
  }

  /** A copy of the first `length` writable bytes, which are there: what was put into them. */
  written(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    let at = 0
    for (let piece = this.#boundary; at < length; piece++) {
      const n = Math.min(length - at, this.#lengths[piece]!)
      copy(this.#windows[piece]!, this.#starts[piece]!, bytes, at, n)
      at += n
    }
    return bytes
  }

  /** Adds the next `length` readable bytes to `pieces`, as far as there is room in it. The cursor stays. */
  rest(length: number, pieces: Pieces): void {
    let left = length
    let offset = this.#readOffset
    for (let piece = this.#readPiece; left > 0 && piece < this.#boundary; piece++) {
      const n = Math.min(left, this.#lengths[piece]! - offset)
      if (!pieces.add(this.#windows[piece]!, this.#starts[piece]! + offset, n)) return
      left -= n
      offset = 0
    }
  }

  /** Passes over the next `length` readable bytes, which are there. */
  skip(length: number): void {
    let left = length
    while (left > 0) {
      const n = Math.min(left, this.#lengths[this.#readPiece]! - this.#readOffset)
      left -= n
      this.#readOffset += n
      if (this.#readOffset === this.#lengths[this.#readPiece]) {
        this.#readPiece++
        this.#readOffset = 0
      }
    }
  }

  /** Adds `length` writable bytes, from the one at `from` on, to `pieces`. The result is how many: there may be no room for all. */
  room(from: number, length: number, pieces: Pieces): number {
    let before = from
    let left = length
    for (let piece = this.#boundary; left > 0 && piece < this.#count; piece++) {
      const has = this.#lengths[piece]!
      if (before >= has) {
        before -= has
        continue
      }
      const n = Math.min(left, has - before)
      if (!pieces.add(this.#windows[piece]!, this.#starts[piece]! + before, n)) break
      before = 0
      left -= n
    }
    return length - left
  }

  /** Copies `length` bytes of `source` from `at` into the next writable bytes. */
  write(source: Uint8Array, at: number, length: number): void {
    let left = length
    let from = at
    while (left > 0) {
      if (this.#writePiece >= this.#count)
        throw guestError('CHAIN_TOO_SHORT', `descriptor chain ${this.head}`, `there is no room for ${left} more bytes`)
      const n = Math.min(left, this.#lengths[this.#writePiece]! - this.#writeOffset)
      copy(source, from, this.#windows[this.#writePiece]!, this.#starts[this.#writePiece]! + this.#writeOffset, n)
      left -= n
      from += n
      this.#writeOffset += n
      if (this.#writeOffset === this.#lengths[this.#writePiece]) {
        this.#writePiece++
        this.#writeOffset = 0
      }
    }
  }
}

/** Short runs are copied by a loop: making a view costs more than 64 bytes do. */
function copy(source: Uint8Array, from: number, target: Uint8Array, to: number, length: number): void {
  if (length <= 64) {
    for (let i = 0; i < length; i++) target[to + i] = source[from + i]!
  } else {
    target.set(from === 0 && length === source.length ? source : source.subarray(from, from + length), to)
  }
}
