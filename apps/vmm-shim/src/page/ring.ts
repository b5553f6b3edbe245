/** The last so many values. */
export class Ring<T> {
  readonly #values: T[] = []
  readonly #size: number

  constructor(size: number) {
    this.#size = size
  }

  push(value: T): void {
    this.#values.push(value)
    if (this.#values.length > this.#size) this.#values.shift()
  }

  /** Oldest first. */
  get values(): T[] {
    return [...this.#values]
  }
}
