import { StringDecoder } from 'node:string_decoder'
import { types } from 'node:util'
import { type Bounds, bounded, type Clock } from './bounded.js'
import { checkClock, checkOptions, checkSignal, refused } from './check.js'
import { QemuError } from './errors.js'

export interface WaitOptions {
  deadlineMs: number
  signal?: AbortSignal | undefined
  /** Only lines from this number on count, e.g. the `lineCount` read before a command was sent. Default 0: all there are. */
  fromLine?: number | undefined
}

/** How much of the console is kept: older lines are dropped (the log file or sink has them all). */
const KEPT_LINES = 50_000
const KEPT_CHARACTERS = 16 << 20
/** What a guest prints without a line end is broken into lines of so many characters. */
const LONGEST_LINE = 64 << 10
const TAIL_LINES = 25
/** An expression looks at an unfinished line of so many characters, which a prompt may be, as soon as more of it comes. */
const SHORT_LINE = 1 << 10

/** A guest's console: the lines so far, the lines to come, and waits for one of them. */
export class GuestConsole {
  readonly #decoder = new StringDecoder('utf8')
  readonly #clock: Clock
  /** Before `#first` they are dropped, and empty until they are cut off, many at a time. */
  #lines: string[] = []
  #first = 0
  readonly #watchers = new Set<() => void>()
  /** Lines that have been cut off. */
  #cut = 0
  /** Of the lines that are kept. */
  #characters = 0
  #partial = ''
  /** What the last chunk has added to it. */
  #fresh = ''
  #endReason: QemuError | undefined

  /** @throws QemuError INVALID_OPTION for what is no clock. */
  constructor(clock: Clock) {
    checkClock('console', clock)
    this.#clock = clock
  }

  /** Everything printed so far (the last 50,000 lines of it, and 16 Mi characters), the unfinished line included. */
  get text(): string {
    return this.#kept().join('\n')
  }

  /** Finished lines so far, dropped ones counted. */
  get lineCount(): number {
    return this.#cut + this.#lines.length
  }

  /** Why nothing more will come: EXITED, PANIC, CLOSED or ABORTED; undefined while QEMU runs. */
  get endReason(): QemuError | undefined {
    return this.#endReason
  }

  /** The last `count` lines that are not blank, for an error message. */
  tail(count = TAIL_LINES): string[] {
    checkCount('console tail: count', count)
    const lines = this.#kept().filter((line) => line.trim() !== '')
    return lines.slice(Math.max(0, lines.length - count))
  }

  /** Feeds what the guest printed; returns it as text. */
  push(chunk: Buffer): string {
    const text = this.#decoder.write(chunk)
    const lines = text.split('\n')
    this.#fresh = lines.at(-1)!
    lines[0] = this.#partial + lines[0]
    this.#partial = lines.pop()!
    for (const line of lines) this.#keep(withoutReturns(line))
    while (this.#partial.length > LONGEST_LINE) {
      this.#keep(this.#partial.slice(0, LONGEST_LINE))
      this.#partial = this.#partial.slice(LONGEST_LINE)
      this.#fresh = this.#partial
    }
    this.#dropOldest()
    this.#notify()
    return text
  }

  /** No more will come: waits that are still open reject with `reason`, iterations end. Only the first reason counts. */
  end(reason: QemuError): void {
    if (this.#endReason) return
    this.#endReason = reason
    this.#notify()
  }

  /**
   * Resolves with the first match in a line so far or to come; a prompt without a line end matches too. A string is looked for
   * as it is. Rejects with DEADLINE, ABORTED, EXITED, PANIC or CLOSED and the last console lines.
   */
  async waitFor(pattern: string | RegExp, options: WaitOptions): Promise<RegExpMatchArray> {
    checkOptions('console', options)
    const { deadlineMs, signal, fromLine = 0 } = options
    if (typeof pattern !== 'string' && !types.isRegExp(pattern)) throw refused('console: pattern', pattern, 'a text or a RegExp')
    checkCount('console: fromLine', fromLine)
    const regexp = typeof pattern === 'string' ? new RegExp(pattern.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')) : stateless(pattern)
    const what = `console: waiting for ${regexp}`
    const bounds: Bounds = { deadlineMs, signal, clock: this.#clock, what, tail: () => this.tail() }
    return bounded(bounds, (resolve, reject) => {
      let next = fromLine
      // Of the line `next`, while it is unfinished: a string is not looked for again where it was not found.
      let searched = 0
      /** The last characters that were searched, with which a match may begin. */
      let carry = ''
      let later: NodeJS.Immediate | undefined
      const advance = (to: number) => {
        next = to
        searched = 0
        carry = ''
      }
      const matchInLine = (line: string) => {
        if (typeof pattern === 'string' && !line.includes(pattern, searched - carry.length)) return null
        return line.match(regexp)
      }
      const matchInPartial = () => {
        if (typeof pattern !== 'string') return this.#partial.match(regexp)
        // Touching the whole line would make one string of all its pieces each time.
        const isNext = searched === this.#partial.length - this.#fresh.length
        const text = isNext ? carry + this.#fresh : this.#partial
        if (text.includes(pattern)) return this.#partial.match(regexp)
        searched = this.#partial.length
        carry = text.slice(Math.max(0, text.length - pattern.length + 1))
        return null
      }
      const look = (evenIfLong: boolean) => {
        if (next < this.#dropped) advance(this.#dropped)
        for (; next < this.lineCount; advance(next + 1)) {
          const match = matchInLine(this.#lines[next - this.#cut]!)
          if (match) return resolve(match)
        }
        if (next === this.lineCount) {
          // An expression begins anew each time: with a long line it waits until all that has come for now is there.
          if (evenIfLong || typeof pattern === 'string' || this.#partial.length <= SHORT_LINE) {
            const match = matchInPartial()
            if (match) return resolve(match)
          } else {
            later ??= setImmediate(() => {
              later = undefined
              look(true)
            })
          }
        }
        if (this.#endReason) reject(this.#endError(what, this.#endReason))
      }
      const watcher = () => look(this.#endReason !== undefined)
      this.#watchers.add(watcher)
      look(true)
      return () => {
        this.#watchers.delete(watcher)
        clearImmediate(later)
      }
    })
  }

  /** All lines from the first one kept, then those to come; ends when QEMU does, or on abort. */
  async *lines(
    options: { signal?: AbortSignal | undefined; fromLine?: number | undefined } = {},
  ): AsyncGenerator<string, void, void> {
    checkOptions('console', options)
    const { signal, fromLine = 0 } = options
    checkSignal('console', signal)
    checkCount('console: fromLine', fromLine)
    let next = fromLine
    while (!signal?.aborted) {
      for (next = Math.max(next, this.#dropped); next < this.lineCount; next++) yield this.#lines[next - this.#cut]!
      if (this.#endReason) {
        if (this.#partial !== '') yield this.#partial
        return
      }
      await this.#change(signal)
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
    return this.lines()
  }

  #change(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve()
      const wake = () => {
        this.#watchers.delete(wake)
        signal?.removeEventListener('abort', wake)
        resolve()
      }
      this.#watchers.add(wake)
      signal?.addEventListener('abort', wake, { once: true })
    })
  }

  #keep(line: string): void {
    this.#lines.push(line)
    this.#characters += line.length
  }

  #dropOldest(): void {
    while (this.#lines.length - this.#first > KEPT_LINES || this.#characters > KEPT_CHARACTERS) {
      this.#characters -= this.#lines[this.#first]!.length
      this.#lines[this.#first++] = ''
    }
    if (this.#first < KEPT_LINES) return
    this.#cut += this.#first
    this.#lines = this.#lines.slice(this.#first)
    this.#first = 0
  }

  /** Lines that are no longer there. */
  get #dropped(): number {
    return this.#cut + this.#first
  }

  #kept(): string[] {
    return [...this.#lines.slice(this.#first), this.#partial]
  }

  #notify(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }

  #endError(what: string, { code, summary, cause }: QemuError): QemuError {
    return new QemuError(code, `${what}: ${summary}`, { cause, console: this.tail() })
  }
}

/** @throws QemuError */
function checkCount(what: string, value: number): void {
  if (!Number.isInteger(value) || value < 0) throw refused(what, value, 'an integer of at least 0')
}

/** By hand: an expression for what stands at the end begins anew at each place before it. */
function withoutReturns(line: string): string {
  let end = line.length
  while (line[end - 1] === '\r') end--
  return line.slice(0, end)
}

/** A global or sticky expression remembers where it stopped, and would skip lines. */
function stateless(regexp: RegExp): RegExp {
  return new RegExp(regexp.source, regexp.flags.replace(/[gy]/g, ''))
}
