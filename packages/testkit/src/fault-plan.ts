import { checkNames, checkObject, count, show } from './check.js'

/** What happens to one direction of a stream. Offsets count the stream's own bytes from 0; inserted ones do not count. */
export interface DirectionPlan {
  /** Deliver in pieces of this many bytes. Default: as they come. */
  every?: number | undefined
  /** Deliver in pieces that end at these offsets (and wherever else a chunk ends). */
  cuts?: readonly number[] | undefined
  /** Bytes to slip in before the byte at `at`. */
  insert?: { at: number; bytes: Uint8Array } | undefined
  /** Deliver this many bytes, and nothing more until the stream's `release()`. */
  stallAt?: number | undefined
  /** Deliver this many bytes, then EOF; what follows is lost. */
  eofAt?: number | undefined
  /** Deliver this many bytes, then reset the connection: ECONNRESET at both ends. */
  resetAt?: number | undefined
}

/** Faults as plain data. `read`: on the way to whoever holds the faulty stream. `write`: on the way from it. */
export interface FaultPlan {
  read?: DirectionPlan | undefined
  write?: DirectionPlan | undefined
}

/** What to do with a direction next. */
export type Step =
  | { do: 'deliver'; bytes: Uint8Array }
  | { do: 'insert'; at: number; bytes: Uint8Array }
  | { do: 'stall' | 'eof' | 'reset'; at: number }

type Event = Exclude<Step, { do: 'deliver' }>

/** A plan as the sequence of steps that it makes of the bytes that come along. */
export class Faults {
  /** Bytes that went through, inserted ones not counted. */
  passed = 0
  readonly #events: Event[]
  readonly #cuts: number[]
  /** The first of the cuts that is not passed. */
  #cut = 0
  readonly #every: number

  /** @throws TypeError or RangeError that names the part of the plan that is wrong. */
  constructor(plan: DirectionPlan = {}) {
    checkNames('fault plan', plan, ['every', 'cuts', 'insert', 'stallAt', 'eofAt', 'resetAt'])
    const { every, cuts = [], insert, stallAt, eofAt, resetAt } = plan
    const offset = (path: string, value: number, min = 0) => count(`fault plan: ${path}`, value, min)
    this.#every = every === undefined ? Number.POSITIVE_INFINITY : offset('every', every, 1)
    if (!Array.isArray(cuts)) throw new TypeError(`fault plan: cuts: must be an array of offsets, got ${show(cuts)}`)
    this.#cuts = cuts.map((cut, i) => offset(`cuts[${i}]`, cut)).sort((a, b) => a - b)
    const events: Event[] = []
    if (insert !== undefined) {
      checkObject('fault plan: insert', insert)
      if (!(insert.bytes instanceof Uint8Array))
        throw new TypeError(`fault plan: insert.bytes: must be a Uint8Array, got ${show(insert.bytes)}`)
      events.push({ do: 'insert', at: offset('insert.at', insert.at), bytes: insert.bytes })
    }
    if (stallAt !== undefined) events.push({ do: 'stall', at: offset('stallAt', stallAt) })
    if (eofAt !== undefined) events.push({ do: 'eof', at: offset('eofAt', eofAt) })
    if (resetAt !== undefined) events.push({ do: 'reset', at: offset('resetAt', resetAt) })
    // Stable: at one offset the order is the one above.
    this.#events = events.sort((a, b) => a.at - b.at)
  }

  /** The faults that are due now, then pieces of `bytes`, each followed by the faults that are due behind it. */
  *steps(bytes: Uint8Array): Generator<Step, void, void> {
    yield* this.#due()
    let at = 0
    while (at < bytes.length) {
      const length = Math.min(bytes.length - at, this.#room())
      const piece = bytes.subarray(at, at + length)
      at += length
      this.passed += length
      yield { do: 'deliver', bytes: piece }
      yield* this.#due()
    }
  }

  *#due(): Generator<Step, void, void> {
    while (this.#events[0] !== undefined && this.#events[0].at <= this.passed) yield this.#events.shift()!
  }

  /** How many bytes may pass before the next piece or the next fault begins; at least 1. */
  #room(): number {
    let room = this.#every - (this.passed % this.#every)
    if (this.#every === Number.POSITIVE_INFINITY) room = this.#every
    while (this.#cut < this.#cuts.length && this.#cuts[this.#cut]! <= this.passed) this.#cut++
    const cut = this.#cuts[this.#cut]
    if (cut !== undefined) room = Math.min(room, cut - this.passed)
    const event = this.#events[0]
    if (event !== undefined) room = Math.min(room, event.at - this.passed)
    return room
  }
}

/** @throws TypeError for a plan with a direction that does not exist. */
export function checkPlan(plan: FaultPlan): void {
  checkNames('fault plan', plan, ['read', 'write'])
}
