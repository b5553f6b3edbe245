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

  constructor(plan: DirectionPlan = {}) {
    this.#every = plan.every === undefined ? Number.POSITIVE_INFINITY : count(plan.every, 'every', 1)
    this.#cuts = (plan.cuts ?? []).map((cut, i) => count(cut, `cuts[${i}]`, 0)).sort((a, b) => a - b)
    const events: Event[] = []
    if (plan.insert !== undefined) {
      events.push({ do: 'insert', at: count(plan.insert.at, 'insert.at', 0), bytes: plan.insert.bytes })
    }
    if (plan.stallAt !== undefined) events.push({ do: 'stall', at: count(plan.stallAt, 'stallAt', 0) })
    if (plan.eofAt !== undefined) events.push({ do: 'eof', at: count(plan.eofAt, 'eofAt', 0) })
    if (plan.resetAt !== undefined) events.push({ do: 'reset', at: count(plan.resetAt, 'resetAt', 0) })
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

function count(value: number, path: string, min: number): number {
  if (!Number.isInteger(value) || value < min) {
    throw new RangeError(`fault plan: ${path}: must be an integer of at least ${min}, got ${String(value)}`)
  }
  return value
}
