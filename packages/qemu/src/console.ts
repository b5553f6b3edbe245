import { StringDecoder } from 'node:string_decoder'
import { onAbort } from '@upcall/foundation/abort'
import { checkClock, checkObject, checkSignal, checkTimeout, integer } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { type Bounds, bounded } from '@upcall/foundation/wait'
import { ConsoleLines } from './console-lines.js'
import { Search } from './console-search.js'
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

const TAIL_LINES = 25

/** A guest's console: the lines so far, the lines to come, and waits for one of them. */
export class GuestConsole {
  readonly #decoder = new StringDecoder('utf8')
  readonly #lines = new ConsoleLines()
  readonly #clock: Clock
  readonly #watchers = new Set<() => void>()
  #endReason: QemuError | undefined

  /** @throws TypeError if the clock is not one. */
  constructor(clock: Clock) {
    checkClock(clock)
    this.#clock = clock
  }

  /** Everything printed so far (the last 50,000 lines of it, and 16 Mi characters), the unfinished line included. */
  get text(): string {
    return this.#lines.all().join('\n')
  }

  /** Finished lines so far, dropped ones counted. */
  get lineCount(): number {
    return this.#lines.end
  }

  /** Why nothing more comes: EXITED, PANIC, CLOSED or ABORTED; undefined while QEMU runs. */
  get endReason(): QemuError | undefined {
    return this.#endReason
  }

  /** The last `count` lines that are not blank, for an error message. */
  tail(count = TAIL_LINES): string[] {
    integer('count', count)
    const lines = this.#lines.all().filter((line) => line.trim() !== '')
    return lines.slice(Math.max(0, lines.length - count))
  }

  /** Feeds what the guest printed; returns it as text. */
  push(chunk: Buffer): string {
    const text = this.#decoder.write(chunk)
    this.#lines.push(text)
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
    integer('fromLine', fromLine)
    checkTimeout('timeoutMs', timeoutMs)
    checkSignal(signal)
    const search = new Search(pattern, this.#lines, fromLine)
    const about = { op: 'waitFor', subject: String(search.regexp) }
    const bounds: Bounds = {
      ...{ timeoutMs, signal, clock: this.#clock },
      late: () =>
        new QemuError({
          ...{ ...about, code: 'DEADLINE', what: `no console line matches within ${Math.round(timeoutMs)} ms` },
          console: this.tail(),
        }),
      aborted: (reason) => abortedError(about, reason, this.tail()),
    }
    return bounded(bounds, (resolve, reject) => {
      let later: NodeJS.Immediate | undefined
      const look = (evenIfLong: boolean) => {
        const found = search.look(evenIfLong)
        if (found === 'later') {
          later ??= setImmediate(() => {
            later = undefined
            look(true)
          })
        } else if (found) return resolve(found)
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
      // Lines may be dropped while the reader is busy with one.
      for (;;) {
        next = Math.max(next, this.#lines.first)
        if (next >= this.#lines.end) break
        yield this.#lines.at(next++)
      }
      if (this.#endReason) {
        if (this.#lines.pending > 0) yield this.#lines.partial
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

  #notify(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }

  #endError(about: About, { code, what, next, cause }: QemuError): QemuError {
    return new QemuError({ ...about, code, what, next, cause, console: this.tail() })
  }
}
