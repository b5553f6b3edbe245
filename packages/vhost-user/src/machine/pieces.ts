/** As many as one system call takes. */
const MAX_PIECES = 1024
/** Numbers for each piece. */
const WORDS = 3

/**
 * Runs of bytes in memory, in their order, as one system call takes them. It refers to memory and copies nothing. One object is used
 * over and over.
 */
export class Pieces {
  /** Where the pieces lie. */
  readonly windows: Uint8Array[] = []
  /** For each piece: the index of its window, where in the window it begins, and its length. */
  readonly words = new Uint32Array(MAX_PIECES * WORDS)
  count = 0
  /** Bytes in all. */
  length = 0
  #window = 0

  clear(): void {
    this.windows.length = this.count = this.length = this.#window = 0
  }

  /** Adds `length` bytes of `window` from `start`, which the caller knows to lie in it. False if there is no room for another piece. */
  add(window: Uint8Array, start: number, length: number): boolean {
    if (length === 0) return true
    if (this.count === MAX_PIECES) return false
    if (this.windows[this.#window] !== window) this.#window = this.#indexOf(window)
    const at = this.count++ * WORDS
    this.words[at] = this.#window
    this.words[at + 1] = start
    this.words[at + 2] = length
    this.length += length
    return true
  }

  #indexOf(window: Uint8Array): number {
    const known = this.windows.indexOf(window)
    return known >= 0 ? known : this.windows.push(window) - 1
  }
}
