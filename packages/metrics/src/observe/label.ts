/** A word as a program would choose it: `cpu.add`, `ECONNREFUSED`, `no-route`. Anything else may be data: an address, a text. */
const WORD = /^[A-Za-z][A-Za-z0-9_.-]{0,39}$/

/** What stands for all values after the first ones. */
export const OTHER = 'other'

/** More than there are operations, errnos and reasons. */
const MOST = 100

/**
 * The values of one label. Some come from outside: a service describes its requests in its own words, and an error may have any code. So
 * there are only so many of them, and each is a word. A monitoring system keeps a series for each value for ever.
 */
export class BoundedLabel {
  readonly #seen = new Set<string>()
  readonly #most: number

  constructor(most = MOST) {
    this.#most = most
  }

  /** The value, or `other`. */
  of(value: unknown): string {
    if (typeof value !== 'string' || !WORD.test(value)) return OTHER
    if (this.#seen.has(value)) return value
    if (this.#seen.size >= this.#most) return OTHER
    this.#seen.add(value)
    return value
  }
}
