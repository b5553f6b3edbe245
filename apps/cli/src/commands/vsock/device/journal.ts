import { errnoOf, fieldsOf, textOf } from '@upcall/foundation/error'
import { errorReport } from '../../../errors.js'
import { EventLog } from '../../../events.js'
import type { Output, Paint } from '../../../output.js'

/** Lines of one kind about one guest: so many at once, and after that one in so many milliseconds. */
const AT_ONCE = 20
const EVERY_MS = 200

/** What becomes of the devices, one line each. A guest decides how often some things happen, so lines of one kind are left out and counted. */
export class Journal {
  readonly #log: EventLog
  readonly #now: () => number
  readonly #kinds = new Map<string, { left: number; at: number; omitted: number }>()

  constructor(output: Output, now: () => number = () => performance.now()) {
    this.#log = new EventLog(output)
    this.#now = now
  }

  /** What the owner of the devices brings about: never left out. */
  say(event: string, value: object, text: (paint: Paint) => string): void {
    this.#log.event({ event, ...value }, text)
  }

  /** --metrics serves. */
  serving(url: string): void {
    this.say('metrics', { url }, (paint) => `${paint('green', 'metrics')} at ${url}`)
  }

  /** --pcap cannot go on. */
  captureFailed(path: string, what: string): void {
    const error = errorReport({ code: 'OUTPUT', subject: path, what })
    this.say(
      'pcap-failed',
      { path, what, error },
      (paint) => `${paint('red', 'capture ended')} ${path}: ${what}; the devices go on`,
    )
  }

  /** The capture is not whole. */
  captureLacks(path: string, packets: number): void {
    this.say('pcap-lacks', { path, packets }, (paint) => `${paint('yellow', 'capture lacks')} ${packets} packets: ${path}`)
  }

  /** What a guest or a client of its socket brings about. @param kind - Lines of one kind are counted together. */
  saySparingly(event: string, cid: number, value: object, text: string, kind = event): void {
    const omitted = this.#admit(`${cid} ${kind}`)
    if (omitted === undefined) return
    const more = omitted === 0 ? '' : ` (and ${omitted} more before)`
    this.say(
      event,
      { cid, ...value, ...(omitted > 0 && { omitted }) },
      (paint) => `${paint('grey', `guest ${cid}:`)} ${text}${more}`,
    )
  }

  failed(event: string, cid: number | undefined, error: unknown): void {
    const report = errorReport(fieldsOf(error) ?? { code: errnoOf(error), subject: '', what: textOf(error) })
    const value = { ...(cid !== undefined && { cid }), error: report }
    this.say(event, value, (paint) => `${paint('red', event)}: ${report.message}`) // prints
  }

  /** How many lines of this kind were left out since the last one; undefined if this one is left out, too. */
  #admit(kind: string): number | undefined {
    const now = this.#now()
    const { left, at, omitted } = this.#kinds.get(kind) ?? { left: AT_ONCE, at: now, omitted: 0 }
    const filled = Math.min(AT_ONCE, left + (now - at) / EVERY_MS)
    const said = filled >= 1
    this.#kinds.set(kind, { left: said ? filled - 1 : filled, at: now, omitted: said ? 0 : omitted + 1 })
    return said ? omitted : undefined
  }
}
