// What becomes of one ring: what each state does with what the front end says. A ring runs from SET_VRING_KICK to GET_VRING_BASE.

import { type Table, type Turn, to } from '@upcall/foundation/machine'
import { type DeviceError, protocolError, toDeviceError } from './errors.js'
import type { MemoryPort } from './memory.js'
import { type RingFeatures, type RingLayout, SplitRing } from './vring.js'

/** What is remembered of the driver that uses the ring. */
interface Driver {
  /** It has given a chain that was taken. */
  readonly active: boolean
  /** Where GET_VRING_BASE found the ring; undefined before the first stop, and once SET_VRING_BASE has said where it starts. */
  readonly stoppedAt: number | undefined
  /** The ring stopped and starts at 0, but was in use: an index that came round by chance, or a new driver. */
  readonly ambiguous: boolean
}

const FRESH: Driver = { active: false, stoppedAt: undefined, ambiguous: false }

/** Waits for SET_VRING_KICK. */
interface Stopped {
  readonly kind: 'stopped'
  /** The available index to go on from. */
  readonly base: number
  readonly driver: Driver
}

/** Started, and not worked on: the guest has broken a rule, or has placed the ring where it cannot be. */
interface Halted {
  readonly kind: 'halted'
  readonly base: number
  readonly driver: Driver
}

/** Started, and its memory has left the table, which the front end changes one region at a time. It goes on when the memory is back. */
interface Displaced {
  readonly kind: 'displaced'
  readonly base: number
  readonly driver: Driver
  readonly error: DeviceError
}

interface Running {
  readonly kind: 'running'
  readonly ring: SplitRing
  readonly driver: Driver
}

export type RingState = Stopped | Halted | Displaced | Running

export type RingEvent =
  /** SET_VRING_KICK. */
  | { readonly type: 'start' }
  /** GET_VRING_BASE. */
  | { readonly type: 'stop' }
  /** SET_VRING_BASE. */
  | { readonly type: 'base'; readonly base: number }
  /** The ring or the memory has another place. `more`: the rest of the memory table may come with the next messages. */
  | { readonly type: 'place'; readonly more: boolean }
  /** The rings are not to be touched any more. */
  | { readonly type: 'halt' }
  /** The rings are to be tried once more. */
  | { readonly type: 'restart' }
  /** A new driver has begun. */
  | { readonly type: 'forget' }
  /** RESET_DEVICE: back to the beginning. */
  | { readonly type: 'reset' }

export type RingEffect =
  /** Interrupts the guest: what it was not told of before is forgotten with the ring of before. */
  | { readonly type: 'interrupt' }
  /** The ring cannot be where the guest has placed it, and no ring may be worked on. */
  | { readonly type: 'fault'; readonly error: DeviceError }
  /** A new driver begins, for certain. */
  | { readonly type: 'newDriver' }
  /** A new driver, or an index that came round by chance. */
  | { readonly type: 'ambiguous' }

export interface RingContext extends Turn<RingEffect> {
  memory: MemoryPort | undefined
  features: RingFeatures
  layout: RingLayout
}

export const INITIAL_RING: RingState = { kind: 'stopped', base: 0, driver: FRESH }

/** The rules. A state without an entry for an event never sees it. */
export const ringTable: Table<RingState, RingEvent, RingContext> = {
  stopped: {
    start: to(['running', 'halted'], run),
    stop: to(['stopped'], stop),
    base: to(['stopped'], setBase),
    halt: to(['stopped'], stay),
    forget: to(['stopped'], forget),
    reset: to(['stopped'], reset),
  },
  halted: {
    start: to(['running', 'halted'], run),
    restart: to(['running', 'halted'], run),
    stop: to(['stopped'], stop),
    base: to(['halted'], setBase),
    halt: to(['halted'], stay),
    forget: to(['halted'], forget),
    reset: to(['stopped'], reset),
  },
  displaced: {
    start: to(['displaced'], stay),
    place: to(['running', 'displaced', 'halted'], place),
    stop: to(['stopped'], stop),
    base: to(['displaced'], setBase),
    halt: to(['halted'], halt),
    forget: to(['displaced'], forget),
    reset: to(['stopped'], reset),
  },
  running: {
    // Another kick descriptor, no more.
    start: to(['running'], stay),
    place: to(['running', 'displaced', 'halted'], place),
    stop: to(['stopped'], stop),
    // The ring knows better where it is.
    base: to(['running'], (c, state: Running, { base }) => ({ ...state, driver: judgeBase(c, state.driver, base) })),
    halt: to(['halted'], halt),
    forget: to(['running'], forget),
    reset: to(['stopped'], reset),
  },
}

/** Where the ring goes on: what GET_VRING_BASE answers. */
export function baseOf(state: RingState): number {
  return state.kind === 'running' ? state.ring.base : state.base
}

function driverOf(state: RingState): Driver {
  const { driver } = state
  return state.kind === 'running' && state.ring.active && !driver.active ? { ...driver, active: true } : driver
}

function stay<State extends RingState>(_c: RingContext, state: State): State {
  return state
}

function halt(_c: RingContext, state: RingState): Halted {
  return { kind: 'halted', base: baseOf(state), driver: driverOf(state) }
}

function run(c: RingContext, state: RingState): Running | Halted {
  const next = place(c, state, { more: false })
  return next.kind === 'displaced' ? halt(c, next) : next
}

function place(c: RingContext, state: RingState, { more }: { readonly more: boolean }): Running | Displaced | Halted {
  const base = baseOf(state)
  const driver = driverOf(state)
  try {
    if (c.memory === undefined) throw protocolError('SET_VRING_KICK', 'the memory table is empty')
    const ring = new SplitRing(c.memory, c.layout, c.features, base)
    c.effects.push({ type: 'interrupt' })
    return { kind: 'running', ring, driver }
  } catch (thrown) {
    const error = toDeviceError(thrown)
    if (more && (c.memory === undefined || error.code === 'RING_ADDRESS')) return { kind: 'displaced', base, driver, error }
    c.effects.push({ type: 'fault', error })
    return { kind: 'halted', base, driver }
  }
}

function stop(_c: RingContext, state: RingState): Stopped {
  const base = baseOf(state)
  return { kind: 'stopped', base, driver: { ...driverOf(state), stoppedAt: base } }
}

function setBase<State extends Stopped | Halted | Displaced>(
  c: RingContext,
  state: State,
  { base }: { readonly base: number },
): State {
  return { ...state, base, driver: judgeBase(c, state.driver, base) }
}

/**
 * Whether a ring that was stopped starts somewhere else, and so for a new driver. A used index is back at 0 once in 65536 stops; that both
 * data rings are is so much rarer than a reset guest that it is taken for one, for a connection kept by mistake would hang and one cut
 * would not.
 */
function judgeBase(c: RingContext, driver: Driver, base: number): Driver {
  if (driver.stoppedAt === undefined) return driver
  if (driver.stoppedAt !== base) {
    c.effects.push({ type: 'newDriver' })
    return { ...driver, stoppedAt: undefined }
  }
  const ambiguous = base === 0 && driver.active
  if (ambiguous) c.effects.push({ type: 'ambiguous' })
  return { ...driver, stoppedAt: undefined, ambiguous }
}

function forget<State extends RingState>(_c: RingContext, state: State): State {
  return { ...state, driver: FRESH }
}

/** The front end tells of it whenever the guest resets the device, and when the VM begins: only a ring that was in use had a driver. */
function reset(c: RingContext, state: RingState): Stopped {
  const { active, stoppedAt } = driverOf(state)
  if (state.kind !== 'stopped' || active || stoppedAt !== undefined) c.effects.push({ type: 'newDriver' })
  return { kind: 'stopped', base: 0, driver: FRESH }
}
