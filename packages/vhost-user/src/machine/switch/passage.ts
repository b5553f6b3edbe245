// The life of a connection between two guests, as the switch sees it. The guests' kernels are its ends and do all the rest: the switch
// only has to know who may say what, and to end it for the one when the other has gone.

import { type Table, type Turn, to } from '@upcall/foundation/machine'

/** Which of the two guests: the caller has begun the connection. */
export type Side = 'caller' | 'callee'

export const otherSide = (side: Side): Side => (side === 'caller' ? 'callee' : 'caller')

/** The caller's REQUEST has come; the callee's answer has not. */
interface Requested {
  readonly kind: 'requested'
  readonly until: number
}

interface Open {
  readonly kind: 'open'
}

/** Over. What is on its way to a guest still gets there. */
interface Closed {
  readonly kind: 'closed'
}

export type PassageState = Requested | Open | Closed

export type PassageEvent =
  /** RESPONSE of a guest. */
  | { readonly type: 'response'; readonly from: Side }
  /** Bytes, credit or SHUTDOWN of a guest. */
  | { readonly type: 'data'; readonly from: Side }
  | { readonly type: 'rst'; readonly from: Side }
  /** A guest sent more than the other's credit allows, or an operation that does not exist. */
  | { readonly type: 'violation'; readonly from: Side }
  /** A guest's driver is gone. */
  | { readonly type: 'gone'; readonly side: Side }
  /** The switch gives the connection up: one guest takes nothing, and others wait for that. */
  | { readonly type: 'stalled' }
  | { readonly type: 'wake' }

export type PassageEffect =
  /** The packet goes on to the other guest. */
  | { readonly type: 'forward' }
  /** The guest gets a RST, after what waits for it. */
  | { readonly type: 'reset'; readonly side: Side }
  /** The guest is through with the connection: nothing more is sent to it. */
  | { readonly type: 'forget'; readonly side: Side }

export type PassageContext = Turn<PassageEffect>

const OPEN: PassageState & Open = { kind: 'open' }
const CLOSED: PassageState & Closed = { kind: 'closed' }

export const passageTable: Table<PassageState, PassageEvent, PassageContext> = {
  requested: {
    response: to(['open', 'closed'], (c, _state: Requested, { from }: { readonly from: Side }) => {
      if (from === 'caller') return resetBoth(c)
      c.effects.push({ type: 'forward' })
      return OPEN
    }),
    data: to(['closed'], resetBoth),
    rst: to(['closed'], rst),
    violation: to(['closed'], resetBoth),
    gone: to(['closed'], gone),
    stalled: to(['closed'], resetBoth),
    wake: to(['requested', 'closed'], (c, state: Requested) => (c.now >= state.until ? resetBoth(c) : state)),
  },
  open: {
    response: to(['closed'], resetBoth),
    data: to(['open'], (c, state: Open) => {
      c.effects.push({ type: 'forward' })
      return state
    }),
    rst: to(['closed'], rst),
    violation: to(['closed'], resetBoth),
    gone: to(['closed'], gone),
    stalled: to(['closed'], resetBoth),
    wake: to(['open'], stay),
  },
  closed: {
    // What crossed the RST that is on its way.
    response: to(['closed'], stay),
    data: to(['closed'], stay),
    violation: to(['closed'], stay),
    stalled: to(['closed'], stay),
    wake: to(['closed'], stay),
    rst: to(['closed'], (c, state: Closed, { from }: { readonly from: Side }) => {
      c.effects.push({ type: 'forget', side: from })
      return state
    }),
    gone: to(['closed'], (c, state: Closed, { side }: { readonly side: Side }) => {
      c.effects.push({ type: 'forget', side })
      return state
    }),
  },
}

function stay<State extends PassageState>(_c: PassageContext, state: State): State {
  return state
}

function resetBoth(c: PassageContext): Closed {
  c.effects.push({ type: 'reset', side: 'caller' }, { type: 'reset', side: 'callee' })
  return CLOSED
}

function rst(c: PassageContext, _state: PassageState, { from }: { readonly from: Side }): Closed {
  return leave(c, from)
}

function gone(c: PassageContext, _state: PassageState, { side }: { readonly side: Side }): Closed {
  return leave(c, side)
}

function leave(c: PassageContext, side: Side): Closed {
  c.effects.push({ type: 'forget', side }, { type: 'reset', side: otherSide(side) })
  return CLOSED
}
