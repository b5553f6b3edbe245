/** A queue of bytes, kept in the chunks that arrived. Each byte is copied at most once, when it is taken. */
export class ByteQueue {
  #chunks: Buffer[] = []
  /** The index of the first chunk that is not taken. */
  #first = 0
  #length = 0

  get length(): number {
    return this.#length
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#length += chunk.length
  }

  /** The oldest `length` bytes. The queue must hold that many. */
  take(length: number): Buffer {
    const taken: Buffer[] = []
    for (let missing = length; missing > 0; ) {
      const chunk = this.#chunks[this.#first]!
      taken.push(chunk.subarray(0, missing))
      if (chunk.length <= missing) this.#first++
      else this.#chunks[this.#first] = chunk.subarray(missing)
      missing -= Math.min(missing, chunk.length)
    }
    this.#length -= length
    // Dropped when half of them are taken, so that each chunk moves once on average.
    if (this.#first * 2 >= this.#chunks.length) {
      this.#chunks = this.#chunks.slice(this.#first)
      this.#first = 0
    }
    return taken.length === 1 ? taken[0]! : Buffer.concat(taken)
  }
}
