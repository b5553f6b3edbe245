import { checkObject, checkOptionalString, checkSignal, duration, integer } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { bounded } from '@upcall/foundation/wait'
import { Cid } from '../address.js'
import { type GuestBoot, newBoot, toldBoot, verdictOf } from './boot.js'
import { badBootError, closedError, lateError, readyAborted } from './errors.js'
import type { NotifyMessage } from './message.js'

export interface ReadyOptions {
  /** The guest to wait for. Default: the first that says how its boot ended. */
  cid?: number | undefined
  /** A unit that has to be active, too, such as `multi-user.target`. It needs systemd 256. */
  unit?: string | undefined
  /** Default 60000 ms. Infinity: no limit. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
}

const READY_TIMEOUT_MS = 60_000
/** How long a guest has, after a READY=1 in doubt, to tell of another target. */
const DOUBT_MS = 1_000

/** What each guest has told of its boot, and the callers that wait for one. */
export class Boots {
  readonly #max: number
  readonly #clock: Clock
  readonly #guests = new Map<number | undefined, GuestBoot>()
  readonly #watchers = new Set<() => void>()
  #closed = false

  /** @param max - Guests that are kept apart. */
  constructor(max: number, clock: Clock) {
    this.#max = max
    this.#clock = clock
  }

  get guests(): ReadonlyMap<number | undefined, GuestBoot> {
    return this.#guests
  }

  hasRoomFor(cid: number | undefined): boolean {
    return this.#guests.has(cid) || this.#guests.size < this.#max
  }

  tell(message: NotifyMessage): void {
    const { cid } = message.from
    this.#guests.set(cid, toldBoot(this.#guests.get(cid) ?? newBoot(cid), message))
    this.#look()
  }

  forget(cid: number | undefined): void {
    this.#guests.delete(cid)
  }

  /** No more will be told: those that wait are rejected. */
  close(): void {
    this.#closed = true
    this.#look()
  }

  /** As `NotifyReceiver.ready`. @param address - Where the messages come from, for errors; empty if that is not known. */
  ready({ cid, unit, timeoutMs, signal }: ReadyOptions & { timeoutMs: number }, address: string): Promise<GuestBoot> {
    const subject = [address, cid === undefined ? '' : `guest ${cid}`].filter((part) => part !== '').join(' ')
    const bounds = {
      ...{ timeoutMs, signal, clock: this.#clock },
      late: () => lateError(subject, timeoutMs, this.#heard(cid)),
      aborted: (reason: unknown) => readyAborted(subject, reason),
    }
    return bounded<GuestBoot>(bounds, (settle, reject) => {
      let cancelDoubt: (() => void) | undefined
      let inDoubt = true
      const look = () => {
        for (const boot of this.#guests.values()) {
          if (cid !== undefined && boot.cid !== cid) continue
          const verdict = verdictOf(boot, unit)
          if (verdict.kind === 'waiting') continue
          if (verdict.kind !== 'ready') reject(badBootError(subject, verdict, boot))
          else if (!verdict.doubtful || !inDoubt) settle(boot)
          else cancelDoubt ??= this.#clock.setTimer(DOUBT_MS, believe)
          return
        }
        if (this.#closed) reject(closedError(subject))
      }
      const believe = () => {
        inDoubt = false
        look()
      }
      this.#watchers.add(look)
      look()
      return () => {
        cancelDoubt?.()
        this.#watchers.delete(look)
      }
    })
  }

  #look(): void {
    for (const look of [...this.#watchers]) look()
  }

  #heard(cid: number | undefined): GuestBoot | undefined {
    return cid === undefined ? [...this.#guests.values()].at(-1) : this.#guests.get(cid)
  }
}

/** @throws {TypeError} or {RangeError} for an option that is wrong. */
export function checkReadyOptions(options: ReadyOptions): { timeoutMs: number; signal: AbortSignal | undefined } {
  checkObject('options', options)
  const { cid, unit, timeoutMs, signal } = options
  if (cid !== undefined) integer('cid', cid, { max: Cid.any - 1 })
  checkOptionalString('unit', unit)
  checkSignal(signal)
  return { timeoutMs: duration('timeoutMs', timeoutMs, READY_TIMEOUT_MS), signal }
}
