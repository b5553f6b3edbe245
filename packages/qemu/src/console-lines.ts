import { TextLines } from '@upcall/foundation/lines'

/** How much is kept. Older lines are dropped. */
const KEPT_LINES = 50_000
const KEPT_CHARACTERS = 16 << 20
/** A longer line is cut. */
const LONGEST_LINE = 64 << 10

/** The lines that a console has printed, the oldest ones dropped. Adding to them is linear, in pieces however small. */
export class ConsoleLines {
  readonly #splitter = new TextLines({ max: LONGEST_LINE, longer: 'cut' })
  /** Lines before `#dropped` are empty, until they are cut off, many at a time. */
  #lines: string[] = []
  #dropped = 0
  /** Lines that have been cut off. */
  #cut = 0
  /** In the lines that are kept. */
  #characters = 0
  #fresh = ''

  /** The number of the first line that is kept. */
  get first(): number {
    return this.#cut + this.#dropped
  }

  /** Finished lines so far, dropped ones counted: the number of the line that has not ended yet. */
  get end(): number {
    return this.#cut + this.#lines.length
  }

  /** The length of the line that has not ended yet. */
  get pending(): number {
    return this.#splitter.pending
  }

  /** The line that has not ended yet. It has to be joined from its pieces. */
  get partial(): string {
    return this.#splitter.peek()
  }

  /** What the last text has added to that line. */
  get fresh(): string {
    return this.#fresh
  }

  /** A finished line, from `first` on. */
  at(number: number): string {
    return this.#lines[number - this.#cut]!
  }

  /** All lines that are kept, the unfinished one included. */
  all(): string[] {
    return [...this.#lines.slice(this.#dropped), this.partial]
  }

  push(text: string): void {
    const before = this.end
    for (const line of this.#splitter.push(text)) this.#keep(withoutReturns(line))
    // After a line end in the text, all of the unfinished line is fresh.
    this.#fresh = this.end === before ? text : this.partial
    this.#dropOldest()
  }

  #keep(line: string): void {
    this.#lines.push(line)
    this.#characters += line.length
  }

  #dropOldest(): void {
    while (this.#lines.length - this.#dropped > KEPT_LINES || this.#characters > KEPT_CHARACTERS) {
      this.#characters -= this.#lines[this.#dropped]!.length
      this.#lines[this.#dropped++] = ''
    }
    if (this.#dropped < KEPT_LINES) return
    this.#cut += this.#dropped
    this.#lines = this.#lines.slice(this.#dropped)
    this.#dropped = 0
  }
}

/** By hand: an expression for the end of a line would start again at each return in it. */
function withoutReturns(line: string): string {
  let end = line.length
  while (line[end - 1] === '\r') end--
  return line.slice(0, end)
}
