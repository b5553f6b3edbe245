import { checkNames, checkObject, integer, wrongType } from '@upcall/foundation/check'

/** The faults of one direction of a stream. Offsets count the stream's own bytes from 0; inserted bytes do not count. */
export interface DirectionPlan {
  /** Deliver in pieces of this many bytes. Default: in the chunks that arrive. */
  every?: number | undefined
  /** Deliver in pieces that end at these offsets, and at the ends of chunks. */
  cuts?: readonly number[] | undefined
  /** Bytes to insert before the byte at `at`. */
  insert?: { at: number; bytes: Uint8Array } | undefined
  /** Deliver this many bytes, and nothing more until the stream's `release()`. */
  stallAt?: number | undefined
  /** Deliver this many bytes, then EOF. Later bytes are lost. */
  eofAt?: number | undefined
  /** Deliver this many bytes, then reset the connection: ECONNRESET at both ends. */
  resetAt?: number | undefined
}

/** Faults as plain data. `read`: on the way to the holder of the faulty stream. `write`: on the way from the holder. */
export interface FaultPlan {
  read?: DirectionPlan | undefined
  write?: DirectionPlan | undefined
}

/** The next step of a direction. */
export type Step =
  | { do: 'deliver'; bytes: Uint8Array }
  | { do: 'insert'; at: number; bytes: Uint8Array }
  | { do: 'stall' | 'eof' | 'reset'; at: number }

type Event = Exclude<Step, { do: 'deliver' }>

/** Turns the bytes of one direction into the steps of its plan. */
export class Faults {
  /** How many bytes went through, without the inserted ones. */
  passed = 0
  readonly #events: Event[]
  readonly #cuts: number[]
  /** The first of the cuts that is not passed. */
  #cut = 0
  readonly #every: number

  /** @throws TypeError or RangeError that names the wrong part of the plan. */
  constructor(plan: DirectionPlan = {}) {
    checkNames('fault plan', plan, ['every', 'cuts', 'insert', 'stallAt', 'eofAt', 'resetAt'])
    const { every, cuts = [], insert, stallAt, eofAt, resetAt } = plan
    const offset = (path: string, value: number, min = 0) => integer(`fault plan: ${path}`, value, { min })
    this.#every = every === undefined ? Number.POSITIVE_INFINITY : offset('every', every, 1)
    if (!Array.isArray(cuts)) wrongType('fault plan: cuts', 'an array of offsets', cuts)
    this.#cuts = cuts.map((cut, i) => offset(`cuts[${i}]`, cut)).sort((a, b) => a - b)
    const events: Event[] = []
    if (insert !== undefined) {
      checkObject('fault plan: insert', insert)
      if (!(insert.bytes instanceof Uint8Array)) wrongType('fault plan: insert.bytes', 'a Uint8Array', insert.bytes)
      events.push({ do: 'insert', at: offset('insert.at', insert.at), bytes: insert.bytes })
    }
    if (stallAt !== undefined) events.push({ do: 'stall', at: offset('stallAt', stallAt) })
    if (eofAt !== undefined) events.push({ do: 'eof', at: offset('eofAt', eofAt) })
    if (resetAt !== undefined) events.push({ do: 'reset', at: offset('resetAt', resetAt) })
    // The sort is stable: at one offset, faults stay in the order above.
    this.#events = events.sort((a, b) => a.at - b.at)
  }

  /** The faults that are due now, then pieces of `bytes`, each followed by the faults that are due after it. */
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

/** @throws TypeError or RangeError for a plan with an unknown direction. */
export function checkPlan(plan: FaultPlan): void {
  checkNames('fault plan', plan, ['read', 'write'])
}
