const FIRST_SIZE = 64

/**
 * A queue of whole numbers from 0 to 2^53 - 1 in as few bytes as they need: seven bits in each byte, the lowest first, and the eighth
 * says that more follow. Numbers below 128 cost a byte each, so that a guest cannot make a long list of many small ones.
 */
export class NumberQueue {
  #bytes = new Uint8Array(0)
  #first = 0
  #end = 0

  /** How many numbers are in it. */
  length = 0
  /** Bytes that it has for them. */
  get size(): number {
    return this.#bytes.length
  }

  push(value: number): void {
    let left = value
    for (; left >= 0x80; left = Math.floor(left / 0x80)) this.#append((left & 0x7f) | 0x80)
    this.#append(left)
    this.length++
  }

  /** The oldest number, which leaves the queue. Only to be called while there is one. */
  shift(): number {
    let value = 0
    for (let unit = 1; ; unit *= 0x80) {
      const byte = this.#bytes[this.#first++]!
      value += (byte & 0x7f) * unit
      if (byte < 0x80) break
    }
    this.length--
    if (this.length === 0) this.clear()
    return value
  }

  clear(): void {
    if (this.#bytes.length > FIRST_SIZE) this.#bytes = new Uint8Array(0)
    this.#first = this.#end = this.length = 0
  }

  #append(byte: number): void {
    if (this.#end === this.#bytes.length) this.#makeRoom()
    this.#bytes[this.#end++] = byte
  }

  /** Half of the bytes are free afterwards, so that each is moved seldom. */
  #makeRoom(): void {
    const kept = this.#end - this.#first
    const from = this.#bytes
    if (2 * kept > from.length || from.length === 0) this.#bytes = new Uint8Array(Math.max(FIRST_SIZE, 2 * from.length))
    this.#bytes.set(from.subarray(this.#first, this.#end))
    this.#first = 0
    this.#end = kept
  }
}
