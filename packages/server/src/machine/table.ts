// The rules of an accepted connection, all of them: what each state does with each event, and to which states that may lead. An event
// without an entry cannot happen in that state and is a mistake of the driver.

import { type Table, type Turn, to } from '@upcall/foundation/machine'
import type { Disconnect } from './end.js'
import type { ConnectionEvent, Effect, EventOf } from './event.js'
import type { In, State } from './state.js'

/** How long the machine waits for the client, in milliseconds. */
export interface Limits {
  /** From accept to the service byte. */
  readonly serviceByteTimeoutMs: number
  /** From a write until the client has taken it. */
  readonly writeTimeoutMs: number
}

export interface Context extends Turn<Effect> {
  readonly limits: Limits
}

const client: Disconnect = { reason: 'client' }

const stay = <S extends State>(_c: Context, state: S): S => state

/** What can happen to any connection that has not ended. */
const live = {
  stop: to(['Ended'], (c: Context, _state: State, { end }: EventOf<'stop'>) => abandon(c, end)),
  error: to(['Ended'], (c: Context, _state: State, { error }: EventOf<'error'>) => abandon(c, { reason: 'stream-error', error })),
  closed: to(['Ended'], () => ended(client)),
}

const failed = to(['Ended'], (c: Context, _state: State, { error }: EventOf<'failed'>) =>
  abandon(c, { reason: 'service-error', error }),
)

export const table: Table<State, ConnectionEvent, Context> = {
  Selecting: {
    ...live,
    chunk: to(['Selecting', 'Opening'], (c, state, { chunk }) => {
      const [byte] = chunk
      if (byte === undefined) return state
      c.effects.push({ type: 'open', byte })
      return { kind: 'Opening', rest: chunk.subarray(1) }
    }),
    eof: to(['Ending'], (c) => finish(c, client)),
    wake: to(['Selecting', 'Ending'], (c, state) =>
      c.now < state.deadline ? state : finish(c, { reason: 'service-byte-timeout' }),
    ),
  },
  Opening: {
    ...live,
    opened: to(['Greeting'], (c, { rest }, { greeting }) => {
      c.effects.push({ type: 'write', bytes: greeting })
      return { kind: 'Greeting', rest, deadline: c.now + c.limits.writeTimeoutMs }
    }),
    refused: to(['Ending'], (c, _state, { end }) => finish(c, end)),
    failed,
    wake: to(['Opening'], stay),
  },
  Greeting: {
    ...live,
    taken: to(['Reading', 'Handling'], (c, { rest }) => (rest.length === 0 ? { kind: 'Reading' } : handle(c, rest))),
    wake: to(['Greeting', 'Ended'], unlessLate),
  },
  Reading: {
    ...live,
    chunk: to(['Reading', 'Handling'], (c, state, { chunk }) => (chunk.length === 0 ? state : handle(c, chunk))),
    eof: to(['Ending'], (c) => finish(c, client)),
    wake: to(['Reading'], stay),
  },
  Handling: {
    ...live,
    answered: to(['Replying'], nextReply),
    failed,
    wake: to(['Handling'], stay),
  },
  Replying: {
    ...live,
    reply: to(['Writing'], (c, _state, { bytes }) => {
      c.effects.push({ type: 'write', bytes })
      return { kind: 'Writing', deadline: c.now + c.limits.writeTimeoutMs }
    }),
    replied: to(['Reading'], () => ({ kind: 'Reading' })),
    failed,
    wake: to(['Replying'], stay),
  },
  Writing: {
    ...live,
    taken: to(['Replying'], nextReply),
    wake: to(['Writing', 'Ended'], unlessLate),
  },
  Ending: {
    // The reason for which it ends stands, whatever happens on the way out.
    stop: to(['Ended'], (c, { end }) => abandon(c, end)),
    error: to(['Ended'], (c, { end }) => abandon(c, end)),
    closed: to(['Ended'], (_c, { end }) => ended(end)),
    finished: to(['Ended'], (c, { end }) => abandon(c, end)),
    wake: to(['Ending', 'Ended'], (c, state) => (c.now < state.deadline ? state : abandon(c, state.end))),
    // The stream may have been flowing, or have more to give after it was destroyed. Nothing reads that.
    chunk: to(['Ending'], stay),
  },
  // What was under way at the end arrives here.
  Ended: {
    chunk: to(['Ended'], stay),
    opened: to(['Ended'], stay),
    refused: to(['Ended'], stay),
    answered: to(['Ended'], stay),
    reply: to(['Ended'], stay),
    replied: to(['Ended'], stay),
    failed: to(['Ended'], stay),
    taken: to(['Ended'], stay),
    finished: to(['Ended'], stay),
    wake: to(['Ended'], stay),
    stop: to(['Ended'], stay),
    error: to(['Ended'], stay),
    closed: to(['Ended'], stay),
  },
}

function handle(c: Context, chunk: Uint8Array): In<'Handling'> {
  c.effects.push({ type: 'receive', chunk })
  return { kind: 'Handling' }
}

function nextReply(c: Context): In<'Replying'> {
  c.effects.push({ type: 'next' })
  return { kind: 'Replying' }
}

function unlessLate<S extends In<'Greeting' | 'Writing'>>(c: Context, state: S): S | In<'Ended'> {
  return c.now < state.deadline ? state : abandon(c, { reason: 'write-timeout' })
}

/** Ends the connection in order: what is written is sent first. */
function finish(c: Context, end: Disconnect): In<'Ending'> {
  c.effects.push({ type: 'end' })
  return { kind: 'Ending', end, deadline: c.now + c.limits.writeTimeoutMs }
}

/** Ends the connection at once. */
function abandon(c: Context, end: Disconnect): In<'Ended'> {
  c.effects.push({ type: 'destroy' })
  return ended(end)
}

function ended(end: Disconnect): In<'Ended'> {
  return { kind: 'Ended', end }
}
