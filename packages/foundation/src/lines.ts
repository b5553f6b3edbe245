import { concatenate } from './bytes.js'

/** What lines are made of. */
type Piece = string | Uint8Array

export interface LineOptions {
  /** How long a line may be, in characters or bytes, without its end. Default: any length. */
  readonly max?: number | undefined
  /** What becomes of a longer line: an error, it is cut into lines of `max`, or clipped: the rest of it is dropped. Default `'error'`. */
  readonly longer?: 'error' | 'cut' | 'clip' | undefined
}

/** A line that is longer than allowed. The splitter has forgotten what it held of it. */
export class LineTooLongError extends Error {
  override readonly name = 'LineTooLongError'
  constructor(readonly max: number) {
    super(`a line is longer than ${max}`)
  }
}

/**
 * Gathers pieces into lines. Each piece is searched once and each line is joined once, so the work is linear in what arrives however it is
 * cut, and no more than one line is held.
 */
abstract class Splitter<T extends Piece> {
  readonly #max: number
  readonly #longer: 'error' | 'cut' | 'clip'
  #pieces: T[] = []
  #length = 0

  constructor({ max = Number.POSITIVE_INFINITY, longer = 'error' }: LineOptions = {}) {
    this.#max = max
    this.#longer = longer
  }

  /** How much of a line that has not ended is held. */
  get pending(): number {
    return this.#length
  }

  protected abstract newlineFrom(piece: T, at: number): number
  protected abstract part(piece: T, from: number, to: number): T
  protected abstract join(pieces: readonly T[]): T

  /**
   * The lines that end in this piece, without their `\n`.
   *
   * @throws {@link LineTooLongError} before the line that is too long; the lines before it have been given.
   */
  *push(piece: T): Generator<T, void, void> {
    for (let from = 0; ; ) {
      const end = this.newlineFrom(piece, from)
      const upTo = end < 0 ? piece.length : end
      for (; this.#longer === 'cut' && this.#length + upTo - from > this.#max; yield this.take()) {
        const room = this.#max - this.#length
        this.#hold(this.part(piece, from, from + room))
        from += room
      }
      const held = this.#longer === 'clip' ? Math.min(upTo, from + this.#max - this.#length) : upTo
      if (from < held) this.#hold(this.part(piece, from, held))
      if (end < 0) return
      from = end + 1
      yield this.take()
    }
  }

  /** What is held of a line that has not ended. It stays held. */
  peek(): T {
    if (this.#pieces.length !== 1) this.#pieces = [this.join(this.#pieces)]
    return this.#pieces[0]!
  }

  /** What is held of a line that has not ended, at the end of everything. */
  take(): T {
    const pieces = this.#pieces
    this.#pieces = []
    this.#length = 0
    return this.join(pieces)
  }

  #hold(piece: T): void {
    this.#length += piece.length
    if (this.#length > this.#max) {
      this.take()
      throw new LineTooLongError(this.#max)
    }
    if (piece.length > 0) this.#pieces.push(piece)
  }
}

/** Lines of text, gathered from strings. */
export class TextLines extends Splitter<string> {
  protected override newlineFrom(piece: string, at: number): number {
    return piece.indexOf('\n', at)
  }
  protected override part(piece: string, from: number, to: number): string {
    return piece.slice(from, to)
  }
  protected override join(pieces: readonly string[]): string {
    return pieces.join('')
  }
}

/** Lines of bytes, gathered from chunks. A line is a copy where it came in more than one chunk, else a view of its chunk. */
export class ByteLines extends Splitter<Uint8Array> {
  protected override newlineFrom(piece: Uint8Array, at: number): number {
    return piece.indexOf(0x0a, at)
  }
  protected override part(piece: Uint8Array, from: number, to: number): Uint8Array {
    return piece.subarray(from, to)
  }
  protected override join(pieces: readonly Uint8Array[]): Uint8Array {
    return pieces.length === 1 ? pieces[0]! : concatenate(pieces)
  }
}
