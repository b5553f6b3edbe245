// What a relay does with what happens to its two ends. Pure: no stream, timer or promise.
//
// Each direction is carried by itself. The relay ends when both directions have ended, when an end has gone or breaks, when the
// limits of silence say so, or when the caller aborts it. An end that takes no more is heard to its end first.

import type { Machine } from '@upcall/foundation/driver'
import { type Table, type Turn, to, transition } from '@upcall/foundation/machine'
import {
  type Direction,
  type DirectionEffect,
  type DirectionEvent,
  directionTable,
  hasEnded,
  initialDirection,
  isBusy,
  isHeard,
  otherSide,
  type Side,
  sides,
  untaken,
} from './direction.js'
import { goneError, stalledError } from './errors.js'

/** What an end can do, and what the relay owes it. */
export interface Abilities {
  /** Its EOF leaves the way to it open. Without half-close the way may be closed: what is still to be sent to it is tried. */
  readonly halfClose: boolean
  /** When the other end has gone: what this end still says is a loss, which has to be reported. So it is heard first. */
  readonly mustBeHeard: boolean
  /** It may go without having taken everything, and nothing is lost: so does a program that does not read its whole input. */
  readonly mayLeaveUnread: boolean
  /**
   * After the other end has ended without half-close, or has gone: how long this end may be silent before it is taken to have
   * nothing more to say. undefined: it comes to an end by itself.
   */
  readonly silenceMs: number | undefined
}

export interface Broken {
  /** The end that broke, or that did not take everything. */
  readonly side: Side
  readonly error: Error
}

/** What a relay has carried. */
export interface Carried {
  /** Bytes that the far end took of the near one. */
  readonly toFar: number
  /** Bytes that the near end took of the far one. */
  readonly toNear: number
}

/** What became of a relay. */
export interface Relayed extends Carried {
  /** Absent when everything ended in order: each end has taken all that was read of the other one. */
  readonly broken?: Broken
  /** The signal cut it off, and what was on its way is lost. */
  readonly aborted?: true
}

interface Directions {
  readonly toNear: Direction
  readonly toFar: Direction
}

export type Relay =
  | ({
      readonly kind: 'Carrying'
      /** This end has gone, and the other one is still heard. */
      readonly gone: Side | undefined
      /** When something moved last. */
      readonly since: number
    } & Directions)
  | ({
      readonly kind: 'Parting'
      /** Why, if not in order. */
      readonly cause: Broken | 'aborted' | undefined
      /** The signal has aborted, before or since. */
      readonly aborted: boolean
      /** The ends that are not closed yet. */
      readonly open: readonly Side[]
      /** What the ends that are closed failed with. */
      readonly errors: Partial<Readonly<Record<Side, Error>>>
    } & Directions)
  | ({ readonly kind: 'Parted' } & Carried)

type Addressed<Event> = Event extends unknown ? Event & { readonly to: Side } : never

export type RelayEvent =
  /** Of the direction that leads to this end. */
  | Addressed<DirectionEvent>
  /** It has closed after its end, without an error: it has said everything and takes nothing. */
  | { readonly type: 'gone'; readonly side: Side }
  | { readonly type: 'broken'; readonly side: Side; readonly error: Error }
  /** Nothing of this end is open. `error` is what its writable failed with. */
  | { readonly type: 'parted'; readonly side: Side; readonly error: Error | undefined }
  | { readonly type: 'abort' }
  | { readonly type: 'wake' }

export type RelayEffect =
  | DirectionEffect
  /** Read nothing more of either end. */
  | { readonly type: 'stop' }
  /** The three ways to part with an end; `parted` follows. In order: everything that was written still goes out. */
  | { readonly type: 'close'; readonly side: Side }
  /** The other end broke with this error. */
  | { readonly type: 'abandon'; readonly side: Side; readonly error: Error }
  | { readonly type: 'destroy'; readonly side: Side }
  | { readonly type: 'settle'; readonly result: Relayed }

/** What a relay is made with. */
export interface RelayLimits {
  readonly near: Abilities
  readonly far: Abilities
  /** After one direction has ended: how long the other one may carry nothing. undefined: for ever. */
  readonly lingerMs: number | undefined
  /** How long an end that has ended without half-close may take nothing of what there is for it. */
  readonly stallMs: number
}

type RelayTurn = Turn<RelayEffect> & RelayLimits

type Carrying = Extract<Relay, { kind: 'Carrying' }>
type Parting = Extract<Relay, { kind: 'Parting' }>

const carrying = to(['Carrying', 'Parting'], (c: RelayTurn, state: Carrying, event: Addressed<DirectionEvent>) =>
  carry(c, state, event),
)
const counting = to(['Parting'], (c: RelayTurn, state: Parting, event: Addressed<DirectionEvent>) => step(c, state, event))
const parting = to(['Parting'], (_c: RelayTurn, state: Parting) => state)
const parted = to(['Parted'], (_c: RelayTurn, state: Extract<Relay, { kind: 'Parted' }>) => state)

export const relayTable: Table<Relay, RelayEvent, RelayTurn> = {
  Carrying: {
    data: carrying,
    taken: carrying,
    end: carrying,
    flushed: carrying,
    refused: carrying,
    gone: to(['Carrying', 'Parting'], (c, state, { side }) => {
      const next = step(c, { ...state, since: c.now, gone: side }, { type: 'refused', to: side, error: goneError() })
      return c[otherSide(side)].mustBeHeard ? unlessOver(c, next) : part(c, next)
    }),
    broken: to(['Parting'], (c, state, { side, error }) => part(c, state, { side, error })),
    abort: to(['Parting'], (c, state) => part(c, state, 'aborted')),
    wake: to(['Carrying', 'Parting'], (c, state) => {
      if (c.now < silentAt(c, state)) return state
      const stuck = sides.find((side) => isLastCall(c, state, side) && isBusy(direction(state, side)))
      return part(c, state, stuck && { side: stuck, error: stalledError() })
    }),
  },
  Parting: {
    // What was written still goes out, and counts.
    taken: counting,
    flushed: parting,
    end: parting,
    refused: parting,
    gone: parting,
    broken: parting,
    wake: parting,
    abort: to(['Parting'], (c, state) => {
      for (const side of state.open) c.effects.push({ type: 'destroy', side })
      return { ...state, aborted: true }
    }),
    parted: to(['Parting', 'Parted'], (c, state, { side, error }) => {
      const open = state.open.filter((other) => other !== side)
      const next = { ...state, open, errors: error ? { ...state.errors, [side]: error } : state.errors }
      if (open.length > 0) return next
      c.effects.push({ type: 'settle', result: resultOf(c, next) })
      return { kind: 'Parted', ...carried(next) }
    }),
  },
  Parted: {
    taken: parted,
    flushed: parted,
    end: parted,
    refused: parted,
    gone: parted,
    broken: parted,
    parted,
    abort: parted,
    wake: parted,
  },
}

function direction(state: Directions, side: Side): Direction {
  return side === 'near' ? state.toNear : state.toFar
}

/** One event of one direction. */
function step<S extends Directions>(c: RelayTurn, state: S, event: Addressed<DirectionEvent>): S {
  const { to } = event
  const effects: DirectionEffect[] = []
  const next = transition(directionTable, { now: c.now, effects, to }, direction(state, to), event)
  c.effects.push(...effects)
  return to === 'near' ? { ...state, toNear: next } : { ...state, toFar: next }
}

function carry(c: RelayTurn, state: Carrying, event: Addressed<DirectionEvent>): Carrying | Parting {
  return unlessOver(c, step(c, { ...state, since: c.now }, event))
}

/** Goes on, unless both directions have ended or the end that has gone is the only one to speak of. */
function unlessOver(c: RelayTurn, state: Carrying): Carrying | Parting {
  const { toNear, toFar, gone } = state
  const heard = gone !== undefined && isHeard(direction(state, gone))
  return heard || (toNear.kind === 'Finished' && toFar.kind === 'Finished') ? part(c, state) : state
}

function part(c: RelayTurn, { toNear, toFar }: Carrying, cause?: Broken | 'aborted'): Parting {
  c.effects.push({ type: 'stop' })
  for (const side of sides)
    if (cause === undefined) c.effects.push({ type: 'close', side })
    else if (cause === 'aborted' || cause.side === side) c.effects.push({ type: 'destroy', side })
    else c.effects.push({ type: 'abandon', side, error: cause.error })
  return { kind: 'Parting', toNear, toFar, cause, aborted: cause === 'aborted', open: sides, errors: {} }
}

/** This end may take no more: it has ended without half-close, or has gone. */
function isLastCall(c: RelayLimits, state: Carrying, side: Side): boolean {
  return state.gone === side || (!c[side].halfClose && hasEnded(direction(state, otherSide(side))))
}

/** When the silence is the end; infinite where it may last. */
function silentAt(c: RelayLimits, state: Carrying): number {
  // The state of almost every chunk: no limit applies.
  if (state.gone === undefined && !hasEnded(state.toNear) && !hasEnded(state.toFar)) return Number.POSITIVE_INFINITY
  const limits = sides.filter((side) => isLastCall(c, state, side)).map((side) => lastCallMs(c, direction(state, side), side))
  // Bytes that wait for a slow reader are not the other end's silence.
  const waiting = sides.some((side) => 'pending' in direction(state, side) && untaken(direction(state, side)) > 0)
  if ((hasEnded(state.toNear) || hasEnded(state.toFar)) && !waiting) limits.push(c.lingerMs)
  return state.since + Math.min(...limits.map((ms) => ms ?? Number.POSITIVE_INFINITY))
}

function lastCallMs(c: RelayLimits, of: Direction, side: Side): number | undefined {
  if (isBusy(of)) return c.stallMs
  return of.kind === 'Finished' ? undefined : c[otherSide(side)].silenceMs
}

function carried({ toFar, toNear }: Directions): Carried {
  return { toFar: toFar.taken, toNear: toNear.taken }
}

function resultOf(c: RelayLimits, state: Parting): Relayed {
  const { cause, aborted, errors } = state
  let broken = cause === 'aborted' ? undefined : cause
  const short = sides.find((side) => untaken(direction(state, side)) > 0 && !c[side].mayLeaveUnread)
  if (short !== undefined && cause === undefined) {
    const of = direction(state, short)
    // It may have broken only while it was being closed.
    broken = { side: short, error: 'error' in of ? of.error : (errors[short] ?? stalledError()) }
  }
  const counts = carried(state)
  if (aborted) return broken || cause === 'aborted' ? { ...counts, aborted } : counts
  return broken ? { ...counts, broken } : counts
}

/** The relay: events and the time go in, effects come out. */
export class RelayMachine implements Machine<RelayEvent, RelayEffect> {
  readonly #limits: RelayLimits
  #state: Relay

  constructor(limits: RelayLimits, now: number) {
    this.#limits = limits
    this.#state = { kind: 'Carrying', toNear: initialDirection, toFar: initialDirection, gone: undefined, since: now }
  }

  get state(): Relay {
    return this.#state
  }

  /** So far. */
  get carried(): Carried {
    const state = this.#state
    return state.kind === 'Parted' ? { toFar: state.toFar, toNear: state.toNear } : carried(state)
  }

  step(event: RelayEvent, now: number): readonly RelayEffect[] {
    const turn: RelayTurn = { ...this.#limits, now, effects: [] }
    this.#state = transition(relayTable, turn, this.#state, event)
    return turn.effects
  }

  get wakeAt(): number {
    return this.#state.kind === 'Carrying' ? silentAt(this.#limits, this.#state) : Number.POSITIVE_INFINITY
  }
}
