// The life of one vsock connection, seen from the host (virtio 1.2, 5.10.6): what each state does with what the guest says, what the
// owner does and what the clock brings. Bytes and credit do not change the state and have no entry: see connection.ts.

import { type Table, type Turn, to } from '@upcall/foundation/machine'
import { Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './packet.js'

/**
 * How a connection ended: `refused` (nothing listens on that port, or its backlog is full), `timeout` (the guest did not answer, or never
 * took our SHUTDOWN), `reset` (RST before both sides had ended), `violation` (the guest broke the rules and was reset), `done` (an orderly
 * end: each side's kernel has everything that the other side sent), `aborted` (by our own side).
 */
export type ConnectionOutcome = 'refused' | 'timeout' | 'reset' | 'violation' | 'done' | 'aborted'

/** The host's REQUEST waits for a guest buffer, or for the guest's answer. */
interface Connecting {
  readonly kind: 'connecting'
  readonly until: number
  /** REQUEST has left: from here on the guest may know of the connection. */
  readonly requested: boolean
}

/** The guest's REQUEST waits for the owner's answer. */
interface Accepting {
  readonly kind: 'accepting'
  readonly until: number
}

interface Open {
  readonly kind: 'open'
  /** The flags of SHUTDOWN that the guest has sent: none, or one of the two. */
  readonly guest: number
}

/** The guest has shut both halves, and the reader has bytes of it yet to take. */
interface Draining {
  readonly kind: 'draining'
  readonly until: number
}

/** The owner has closed: the guest's RST is waited for. */
interface Closing {
  readonly kind: 'closing'
  readonly guest: number
  readonly until: number
}

interface Closed {
  readonly kind: 'closed'
  readonly outcome: ConnectionOutcome
  /** It was open before. */
  readonly opened: boolean
  /** The guest had said that it sends nothing more: what it sent is complete. */
  readonly complete: boolean
}

export type Life = Connecting | Accepting | Open | Draining | Closing | Closed

export type LifeEvent =
  // The guest's packets.
  | { readonly type: 'response' }
  | { readonly type: 'rst' }
  /** `taken`: the reader has taken all bytes of the guest. */
  | { readonly type: 'shutdown'; readonly flags: number; readonly taken: boolean }
  /** Bytes or credit outside of `open` and `draining`. */
  | { readonly type: 'data' }
  /** More bytes than the credit allows, bytes after the end, or an unknown operation. */
  | { readonly type: 'violation' }
  // The owner's acts.
  | { readonly type: 'accept' }
  /** The reader has taken bytes of the guest, and `all` says whether any are left. */
  | { readonly type: 'taken'; readonly all: boolean }
  /** `unsent`: bytes for the guest wait for its buffers. */
  | { readonly type: 'close'; readonly unsent: boolean }
  | { readonly type: 'abort' }
  // What else happens.
  | { readonly type: 'requested' }
  | { readonly type: 'wake' }
  | { readonly type: 'abandoned' }

export type LifeEffect =
  /** A packet falls due. */
  | { readonly type: 'say'; readonly op: number }
  /** The connection has ended: no packet is due any more, no timer runs, and bytes for the guest are lost. */
  | { readonly type: 'silence' }
  /** The guest takes no more bytes. */
  | { readonly type: 'dropOutput' }
  /** Bytes of the guest are no longer wanted. */
  | { readonly type: 'dropInput' }
  /** The owner has to look. */
  | { readonly type: 'news' }

export interface LifeContext extends Turn<LifeEffect> {
  /** How long an orderly end may take before it becomes a reset. */
  readonly lingerMs: number
  /** The flags of SHUTDOWN that have left for the guest. */
  sent: number
}

const OPEN: Life & Open = { kind: 'open', guest: 0 }

/** The rules. A state without an entry for an event never sees it. */
export const connectionTable: Table<Life, LifeEvent, LifeContext> = {
  connecting: {
    requested: to(['connecting'], (_c, state: Connecting) => ({ ...state, requested: true })),
    response: to(['open'], (c) => {
      c.effects.push({ type: 'news' })
      return OPEN
    }),
    rst: to(['closed'], (c, state) => finish(c, state, 'refused')),
    shutdown: to(['closed'], violate),
    data: to(['closed'], violate),
    violation: to(['closed'], violate),
    close: to(['closed'], abort),
    abort: to(['closed'], abort),
    wake: to(['closed'], (c, state: Connecting) => finish(c, state, 'timeout', state.requested)),
    abandoned: to(['closed'], vanish),
  },
  accepting: {
    rst: to(['closed'], vanish),
    response: to(['closed'], violate),
    shutdown: to(['closed'], violate),
    data: to(['closed'], violate),
    violation: to(['closed'], violate),
    accept: to(['open'], (c) => {
      c.effects.push({ type: 'say', op: Op.RESPONSE })
      return OPEN
    }),
    close: to(['closed'], abort),
    abort: to(['closed'], abort),
    wake: to(['closed'], (c, state) => finish(c, state, 'timeout', true)),
    abandoned: to(['closed'], vanish),
  },
  open: {
    rst: to(['closed'], vanish),
    response: to(['closed'], violate),
    violation: to(['closed'], violate),
    shutdown: to(['open', 'draining', 'closed'], (c, state: Open, { flags, taken }: Shutdown) => {
      const guest = state.guest | (flags & SHUTDOWN_BOTH)
      if ((guest & SHUTDOWN_RECEIVE) !== 0) c.effects.push({ type: 'dropOutput' })
      if (guest === SHUTDOWN_BOTH) return drain(c, { kind: 'draining', until: c.now + c.lingerMs }, taken)
      c.effects.push({ type: 'news' })
      return { kind: 'open', guest }
    }),
    close: to(['closing', 'closed'], (c, state: Open, { unsent }: Close) => {
      if (unsent) return abort(c, state)
      c.effects.push({ type: 'say', op: Op.SHUTDOWN }, { type: 'dropInput' })
      return { kind: 'closing', guest: state.guest, until: c.now + c.lingerMs }
    }),
    abort: to(['closed'], abort),
    abandoned: to(['closed'], vanish),
  },
  draining: {
    rst: to(['closed'], vanish),
    response: to(['closed'], violate),
    violation: to(['closed'], violate),
    shutdown: to(['draining', 'closed'], (c, state: Draining, { taken }: Shutdown) => drain(c, state, taken)),
    taken: to(['draining', 'closed'], (c, state: Draining, { all }) => (all || c.now >= state.until ? done(c, state) : state)),
    close: to(['closed'], done),
    abort: to(['closed'], abort),
    // What was sent is in the guest, whose program may be slow; what came is here.
    wake: to(['closed'], done),
    abandoned: to(['closed'], vanish),
  },
  closing: {
    rst: to(['closed'], vanish),
    // Bytes that crossed our SHUTDOWN have no reader.
    response: to(['closing'], stay),
    data: to(['closing'], stay),
    violation: to(['closing'], stay),
    // The guest's own SHUTDOWN of both halves, in one packet or in two, is the other half of the end.
    shutdown: to(['closing', 'closed'], (c, state: Closing, { flags }: Shutdown) => {
      const guest = state.guest | (flags & SHUTDOWN_BOTH)
      return guest === SHUTDOWN_BOTH ? done(c, { ...state, guest }) : { ...state, guest }
    }),
    close: to(['closing'], stay),
    abort: to(['closed'], abort),
    wake: to(['closed'], (c, state) => finish(c, state, c.sent === SHUTDOWN_BOTH ? 'done' : 'timeout', true)),
    abandoned: to(['closed'], vanish),
  },
  closed: {
    // It crossed ours, which need not leave any more.
    rst: to(['closed'], silence),
    response: to(['closed'], stay),
    shutdown: to(['closed'], stay),
    data: to(['closed'], stay),
    violation: to(['closed'], stay),
    close: to(['closed'], stay),
    abort: to(['closed'], stay),
    abandoned: to(['closed'], silence),
  },
}

type Shutdown = Extract<LifeEvent, { type: 'shutdown' }>
type Close = Extract<LifeEvent, { type: 'close' }>

/** The flags of SHUTDOWN that the guest has sent. */
export function guestShutdown(state: Life): number {
  switch (state.kind) {
    case 'open':
    case 'closing':
      return state.guest
    case 'draining':
      return SHUTDOWN_BOTH
    case 'closed':
      return state.complete ? SHUTDOWN_SEND : 0
    default:
      return 0
  }
}

/** Whether the connection is or was open. */
export function wasOpen(state: Life): boolean {
  return state.kind === 'closed' ? state.opened : state.kind !== 'connecting' && state.kind !== 'accepting'
}

/** When the state ends by itself. */
export function until(state: Life): number {
  return state.kind === 'open' || state.kind === 'closed' ? Number.POSITIVE_INFINITY : state.until
}

function stay<State extends Life>(_c: LifeContext, state: State): State {
  return state
}

function silence(c: LifeContext, state: Closed): Closed {
  c.effects.push({ type: 'silence' })
  return state
}

/** Bytes that have come stay readable: only `abort` and the way to `closing` drop them. */
function finish(c: LifeContext, state: Life, outcome: ConnectionOutcome, reset = false): Closed {
  c.effects.push({ type: 'silence' })
  if (reset) c.effects.push({ type: 'say', op: Op.RST })
  c.effects.push({ type: 'news' })
  return { kind: 'closed', outcome, opened: wasOpen(state), complete: (guestShutdown(state) & SHUTDOWN_SEND) !== 0 }
}

function violate(c: LifeContext, state: Life): Closed {
  return finish(c, state, 'violation', true)
}

function done(c: LifeContext, state: Life): Closed {
  return finish(c, state, 'done', true)
}

/** A REQUEST that never left needs no reset. */
function abort(c: LifeContext, state: Life): Closed {
  c.effects.push({ type: 'dropInput' })
  return finish(c, state, 'aborted', state.kind !== 'connecting' || state.requested)
}

/** The guest's end of the connection is gone: by its RST, or with the guest. */
function vanish(c: LifeContext, state: Life): Closed {
  return finish(c, state, isOrderly(guestShutdown(state), c.sent) ? 'done' : 'reset')
}

/** Whether a reset cuts nothing short: both sides have ended, or one has closed. */
function isOrderly(guest: number, sent: number): boolean {
  if (guest === SHUTDOWN_BOTH || sent === SHUTDOWN_BOTH) return true
  return (guest & SHUTDOWN_SEND) !== 0 && (sent & SHUTDOWN_SEND) !== 0
}

/** The guest has shut both halves. Once everything that came has been taken, a RST says so. */
function drain(c: LifeContext, state: Draining, taken: boolean): Draining | Closed {
  if (taken || c.now >= state.until) return done(c, state)
  c.effects.push({ type: 'dropOutput' }, { type: 'news' })
  return state
}
