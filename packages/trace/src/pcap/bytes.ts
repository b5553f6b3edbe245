import { concatenate } from '@upcall/foundation/bytes'

/** The longest piece that is asked for at once, in bytes, is bounded by the callers; each byte is copied once. */
export class ByteSource {
  readonly #input: AsyncIterator<Uint8Array>
  #chunk: Uint8Array = new Uint8Array(0)
  /** Of the next byte, from the beginning of the input. */
  offset = 0

  constructor(input: AsyncIterable<Uint8Array>) {
    this.#input = input[Symbol.asyncIterator]()
  }

  /** The next bytes: `length` of them, or all that are left. */
  async take(length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    let missing = length
    while (missing > 0 && (this.#chunk.length > 0 || (await this.#fill()))) {
      const part = this.#chunk.subarray(0, missing)
      parts.push(part)
      missing -= part.length
      this.#chunk = this.#chunk.subarray(part.length)
    }
    this.offset += length - missing
    return concatenate(parts)
  }

  /** Leaves out bytes without keeping them. @returns how many there were. */
  async skip(length: number): Promise<number> {
    let missing = length
    while (missing > 0 && (this.#chunk.length > 0 || (await this.#fill()))) {
      const skipped = Math.min(missing, this.#chunk.length)
      missing -= skipped
      this.#chunk = this.#chunk.subarray(skipped)
    }
    this.offset += length - missing
    return length - missing
  }

  /** The input is not needed any more. */
  async close(): Promise<void> {
    await this.#input.return?.()
  }

  async #fill(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#input.next()
      if (done) return false
      if (value.length === 0) continue
      this.#chunk = value
      return true
    }
  }
}
