import { types } from 'node:util'
import { wrongType } from '@upcall/foundation/check'
import type { ConsoleLines } from './console-lines.js'

/** An expression looks at an unfinished line of so many characters, which may be a prompt, each time more of it comes. */
const SHORT_LINE = 1 << 10

/** A search for the first match of one pattern. It looks at each character once, as far as the pattern allows. */
export class Search {
  /** The pattern as a regular expression. */
  readonly regexp: RegExp
  /** Undefined for an expression. */
  readonly #text: string | undefined
  readonly #lines: ConsoleLines
  /** The line to look at next. */
  #next: number
  /** How much of it has been searched while it was unfinished: a text is not looked for again where it was not found. */
  #searched = 0
  /** The last characters that were searched, with which a match may begin. */
  #carry = ''

  /** @throws TypeError if the pattern is neither a string nor a RegExp. */
  constructor(pattern: string | RegExp, lines: ConsoleLines, fromLine: number) {
    if (typeof pattern !== 'string' && !types.isRegExp(pattern)) wrongType('pattern', 'a string or a RegExp', pattern)
    this.#text = typeof pattern === 'string' ? pattern : undefined
    this.regexp = typeof pattern === 'string' ? new RegExp(pattern.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')) : stateless(pattern)
    this.#lines = lines
    this.#next = fromLine
  }

  /** `later`: no match so far, and a long unfinished line is to be looked at once all that has come for now is there. */
  look(evenIfLong: boolean): RegExpMatchArray | 'later' | undefined {
    const { first, end } = this.#lines
    if (this.#next < first) this.#advance(first)
    for (; this.#next < end; this.#advance(this.#next + 1)) {
      const match = this.#inLine(this.#lines.at(this.#next))
      if (match) return match
    }
    if (this.#next > end) return undefined
    // An expression starts again each time.
    if (!evenIfLong && this.#text === undefined && this.#lines.pending > SHORT_LINE) return 'later'
    return this.#inPartial() ?? undefined
  }

  #advance(to: number): void {
    this.#next = to
    this.#searched = 0
    this.#carry = ''
  }

  #inLine(line: string): RegExpMatchArray | null {
    if (this.#text !== undefined && !line.includes(this.#text, this.#searched - this.#carry.length)) return null
    return line.match(this.regexp)
  }

  #inPartial(): RegExpMatchArray | null {
    if (this.#text === undefined) return this.#lines.partial.match(this.regexp)
    // Touching the whole line would make one string of all its pieces each time.
    const { pending, fresh } = this.#lines
    const text = this.#searched === pending - fresh.length ? this.#carry + fresh : this.#lines.partial
    if (text.includes(this.#text)) return this.#lines.partial.match(this.regexp)
    this.#searched = pending
    this.#carry = text.slice(Math.max(0, text.length - this.#text.length + 1))
    return null
  }
}

/** A global or sticky expression remembers where it stopped, and would skip lines. */
function stateless(regexp: RegExp): RegExp {
  return new RegExp(regexp.source, regexp.flags.replace(/[gy]/g, ''))
}
