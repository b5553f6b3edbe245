import { StringDecoder } from 'node:string_decoder'
import { types } from 'node:util'
import { onAbort } from '@upcall/foundation/abort'
import { checkClock, checkObject, checkSignal, checkTimeout, integer, wrongType } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { TextLines } from '@upcall/foundation/lines'
import { bounded } from '@upcall/foundation/wait'
import { type About, abortedError, QemuError } from './errors.js'

export interface WaitOptions {
  /** Gives up with the code DEADLINE after so many milliseconds; Infinity for no limit. */
  timeoutMs: number
  signal?: AbortSignal | undefined
  /** Only lines from this number on count, e.g. the `lineCount` read before a command was sent. Default 0: all there are. */
  fromLine?: number | undefined
}

export interface LinesOptions {
  signal?: AbortSignal | undefined
  /** The number of the first line. Default 0: all there are. */
  fromLine?: number | undefined
}

/** How much of the console is kept. Older lines are dropped; the log file or sink has them all. */
const KEPT_LINES = 50_000
const KEPT_CHARACTERS = 16 << 20
/** A longer line is cut. */
const LONGEST_LINE = 64 << 10
const TAIL_LINES = 25
/** An expression looks at an unfinished line of so many characters, which may be a prompt, each time more of it comes. */
const SHORT_LINE = 1 << 10

/** A guest's console: the lines so far, the lines to come, and waits for one of them. */
export class GuestConsole {
  readonly #decoder = new StringDecoder('utf8')
  readonly #splitter = new TextLines({ max: LONGEST_LINE, longer: 'cut' })
  readonly #clock: Clock
  /** Lines before `#first` are dropped: they are empty until they are cut off, many at a time. */
  #lines: string[] = []
  #first = 0
  readonly #watchers = new Set<() => void>()
  /** Lines that have been cut off. */
  #cut = 0
  /** In the lines that are kept. */
  #characters = 0
  /** What the last chunk has added to the unfinished line. */
  #fresh = ''
  #endReason: QemuError | undefined

  /** @throws TypeError if the clock is not one. */
  constructor(clock: Clock) {
    checkClock(clock)
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

  /** Why nothing more comes: EXITED, PANIC, CLOSED or ABORTED; undefined while QEMU runs. */
  get endReason(): QemuError | undefined {
    return this.#endReason
  }

  /** The last `count` lines that are not blank, for an error message. */
  tail(count = TAIL_LINES): string[] {
    integer('count', count)
    const lines = this.#kept().filter((line) => line.trim() !== '')
    return lines.slice(Math.max(0, lines.length - count))
  }

  /** Feeds what the guest printed; returns it as text. */
  push(chunk: Buffer): string {
    const text = this.#decoder.write(chunk)
    const before = this.lineCount
    for (const line of this.#splitter.push(text)) this.#keep(withoutReturns(line))
    // After a line end in the chunk, all of the unfinished line is fresh.
    this.#fresh = this.lineCount === before ? text : this.#partial
    this.#dropOldest()
    this.#notify()
    return text
  }

  /** Nothing more comes: open waits reject with `reason`, and iterations end. Only the first reason counts. */
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
    checkObject('options', options)
    const { timeoutMs, signal, fromLine = 0 } = options
    if (typeof pattern !== 'string' && !types.isRegExp(pattern)) wrongType('pattern', 'a string or a RegExp', pattern)
    integer('fromLine', fromLine)
    checkTimeout('timeoutMs', timeoutMs)
    checkSignal(signal)
    const regexp = typeof pattern === 'string' ? new RegExp(pattern.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')) : stateless(pattern)
    const about = { op: 'waitFor', subject: String(regexp) }
    const bounds = {
      ...{ timeoutMs, signal, clock: this.#clock },
      late: () =>
        new QemuError({
          ...{ ...about, code: 'DEADLINE', what: `no console line matches within ${Math.round(timeoutMs)} ms` },
          console: this.tail(),
        }),
      aborted: (reason: unknown) => abortedError(about, reason, this.tail()),
    }
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
        const length = this.#splitter.pending
        const text = searched === length - this.#fresh.length ? carry + this.#fresh : this.#partial
        if (text.includes(pattern)) return this.#partial.match(regexp)
        searched = length
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
          // An expression starts again each time: with a long line it waits until all that has come for now is there.
          if (evenIfLong || typeof pattern === 'string' || this.#splitter.pending <= SHORT_LINE) {
            const match = matchInPartial()
            if (match) return resolve(match)
          } else {
            later ??= setImmediate(() => {
              later = undefined
              look(true)
            })
          }
        }
        if (this.#endReason) reject(this.#endError(about, this.#endReason))
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

  /** All lines from the first one kept, then those to come. Ends when QEMU does, or on abort. */
  async *lines(options: LinesOptions = {}): AsyncGenerator<string, void, void> {
    checkObject('options', options)
    const { signal, fromLine = 0 } = options
    checkSignal(signal)
    integer('fromLine', fromLine)
    let next = fromLine
    while (!signal?.aborted) {
      for (next = Math.max(next, this.#dropped); next < this.lineCount; next++) yield this.#lines[next - this.#cut]!
      if (this.#endReason) {
        if (this.#splitter.pending > 0) yield this.#partial
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
        unlisten()
        resolve()
      }
      const unlisten = onAbort(signal, wake)
      this.#watchers.add(wake)
    })
  }

  /** The line that has not ended yet. */
  get #partial(): string {
    return this.#splitter.peek()
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

  /** The number of lines that are no longer kept. */
  get #dropped(): number {
    return this.#cut + this.#first
  }

  #kept(): string[] {
    return [...this.#lines.slice(this.#first), this.#partial]
  }

  #notify(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }

  #endError(about: About, { code, what, next, cause }: QemuError): QemuError {
    return new QemuError({ ...about, code, what, next, cause, console: this.tail() })
  }
}

/** By hand: an expression for the end of a line would start again at each return in it. */
function withoutReturns(line: string): string {
  let end = line.length
  while (line[end - 1] === '\r') end--
  return line.slice(0, end)
}

/** A global or sticky expression remembers where it stopped, and would skip lines. */
function stateless(regexp: RegExp): RegExp {
  return new RegExp(regexp.source, regexp.flags.replace(/[gy]/g, ''))
}
