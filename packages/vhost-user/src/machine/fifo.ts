/** A list that grows at its end and shrinks at its beginning. What leaves it is let go of at once. (Shifting a long array is slow.) */
export class Fifo<T extends object> {
  #items: (T | undefined)[] = []
  #first = 0

  get size(): number {
    return this.#items.length - this.#first
  }

  /** The oldest; undefined if there is none. */
  get first(): T | undefined {
    return this.#items[this.#first]
  }

  /** The newest; undefined if there is none. */
  get last(): T | undefined {
    return this.#items.at(-1)
  }

  /** The one after so many older ones. */
  at(index: number): T | undefined {
    return this.#items[this.#first + index]
  }

  push(item: T): void {
    this.#items.push(item)
  }

  /** The oldest leaves. Only to be called while there is one. */
  shift(): void {
    this.#items[this.#first++] = undefined
    if (this.#first <= 64 || 2 * this.#first <= this.#items.length) return
    this.#items = this.#items.slice(this.#first)
    this.#first = 0
  }

  /** The newest leaves. Only to be called while there is one. */
  pop(): void {
    this.#items.pop()
  }

  /** False if it is not in the list. */
  delete(item: T): boolean {
    const at = this.#items.indexOf(item, this.#first)
    if (at >= 0) this.#items.splice(at, 1)
    return at >= 0
  }

  clear(): void {
    this.#items = []
    this.#first = 0
  }

  /** From the oldest to the newest. */
  *[Symbol.iterator](): Generator<T> {
    for (let at = this.#first; at < this.#items.length; at++) yield this.#items[at]!
  }
}
