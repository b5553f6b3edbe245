// The session's rules, all of them: what each state does with each event, and to which states that may lead. An event without an entry
// cannot happen in that state and is a mistake of the driver. Everything a handler wants done is an effect.

import { backoffDelay } from '@upcall/foundation/backoff'
import { type Table, to } from '@upcall/foundation/machine'
import { FrameDecoder, MESSAGE_SIZE } from '@upcall/wire'
import type { UpcallError } from '../error.js'
import type { Context } from './context.js'
import {
  BEFORE_GREETING,
  because,
  budgetSpent,
  disconnected,
  endedBy,
  endOfReply,
  late,
  lateReply,
  notTheGreeting,
  type Reason,
  requestError,
  unasked,
  unreachable,
} from './errors.js'
import type { EventOf, ReconnectReason, SessionEvent } from './event.js'
import type { Channel, Failure, In, Session, Ticket } from './state.js'

const stay = <S extends Session>(_c: Context, state: S): S => state

export const table: Table<Session, SessionEvent, Context> = {
  Due: {
    request: to(['Due'], enqueue),
    abort: to(['Due'], abortWaiting),
    wake: to(['Due', 'Dialing', 'Failed'], (c, state) => {
      if (c.now >= c.budgetEnd) return giveUp(c, budgetSpent(c, 'none began'))
      return c.now >= state.at ? dial(c) : state
    }),
    reconnect: to(['Dialing'], startAgain),
    close: to(['Closed'], (c) => shut(c)),
  },
  Dialing: {
    dialed: to(['Greeting'], greet),
    dialFailed: to(['Due', 'Failed'], (c, _state, { error, final }) =>
      final ? giveUp(c, endedBy(error)) : tryAgain(c, 'dial-failed', error),
    ),
    // The driver tells of a stream that ended only after it has told of the stream.
    request: to(['Dialing'], enqueue),
    abort: to(['Dialing'], abortWaiting),
    wake: to(['Dialing', 'Due', 'Failed'], (c, state) => {
      if (c.now >= c.budgetEnd) return giveUp(c, budgetSpent(c, 'no connection so far'), state.conn)
      if (c.now < state.until) return state
      return tryAgain(c, 'dial-timeout', late(c.options, `no connection within ${c.options.dialMs} ms`), state.conn)
    }),
    reconnect: to(['Dialing'], stay),
    close: to(['Closed'], (c, { conn }) => shut(c, conn)),
  },
  Greeting: {
    bytes: to(['Greeting', 'Ready', 'Due', 'Failed'], readGreeting),
    ended: to(['Due', 'Failed'], (c, { conn }, { error }) =>
      tryAgain(c, 'disconnected', disconnected(c.options, BEFORE_GREETING, error), conn),
    ),
    unsent: to(['Due', 'Failed'], (c, { conn }, { error }) =>
      tryAgain(c, 'disconnected', disconnected(c.options, 'before the service byte was sent', error), conn),
    ),
    request: to(['Greeting'], enqueue),
    abort: to(['Greeting'], abortWaiting),
    wake: to(['Greeting', 'Due', 'Failed'], (c, state) => {
      if (c.now >= c.budgetEnd) return giveUp(c, budgetSpent(c, 'no greeting so far'), state.conn)
      if (c.now < state.until) return state
      const cause = late(c.options, `the service did not greet within ${c.options.greetingMs} ms`)
      return tryAgain(c, 'greeting-timeout', cause, state.conn)
    }),
    reconnect: to(['Greeting'], stay),
    close: to(['Closed'], (c, { conn }) => shut(c, conn)),
  },
  Ready: {
    bytes: to(['Due', 'Failed'], (c, { channel }) => lose(c, channel, 'protocol', unasked(c.options))),
    ended: to(['Due', 'Failed'], (c, { channel }, { error }) =>
      lose(c, channel, 'disconnected', disconnected(c.options, 'while idle', error)),
    ),
    request: to(['Ready'], enqueue),
    next: to(['Ready', 'Busy', 'Dialing'], sendNext),
    abort: to(['Ready'], abortWaiting),
    wake: to(['Ready'], stay),
    reconnect: to(['Ready'], stay),
    close: to(['Closed'], (c, { channel }) => shut(c, channel.conn)),
  },
  Busy: {
    bytes: to(['Busy', 'Ready', 'Due', 'Failed'], readReply),
    ended: to(['Due', 'Failed'], (c, { channel, ticket }, { error }) => {
      const what = endOfReply(channel.decoder.pending, channel.decoder.size, error)
      fail(c, ticket, { code: 'DISCONNECTED', outcome: 'indeterminate', what, cause: error })
      return lose(c, channel, 'disconnected', disconnected(c.options, 'during a request', error))
    }),
    unsent: to(['Due', 'Failed'], (c, { channel, ticket }, { error }) => {
      c.queue.unshift(ticket)
      return lose(c, channel, 'disconnected', disconnected(c.options, 'before a request was sent', error))
    }),
    request: to(['Busy'], enqueue),
    abort: to(['Busy', 'Due', 'Failed'], (c, state, event) => {
      if (event.id !== state.ticket.id) return abortWaiting(c, state, event)
      const { reason: cause } = event
      fail(c, state.ticket, { code: 'ABORTED', outcome: 'indeterminate', what: 'aborted after it was sent', cause })
      return lose(c, state.channel, 'request-aborted', cause)
    }),
    wake: to(['Busy', 'Due', 'Failed'], (c, state) => {
      const { channel, ticket, replyBy } = state
      if (c.now < Math.min(replyBy, ticket.deadline)) return state
      // A late reply would be taken for the next one: only a new connection resynchronises (protocol, fact 17).
      const error = fail(c, ticket, { code: 'TIMEOUT', outcome: 'indeterminate', what: lateReply(ticket, replyBy) })
      return lose(c, channel, 'request-timeout', error)
    }),
    reconnect: to(['Busy'], stay),
    close: to(['Closed'], (c, { channel, ticket }) => {
      fail(c, ticket, { code: 'CLOSED', outcome: 'indeterminate', what: 'the client was closed before the reply' })
      return shut(c, channel.conn)
    }),
  },
  Failed: {
    request: to(['Failed'], (c, state, { ticket }) => {
      fail(c, ticket, unreachable(state.failure))
      return state
    }),
    abort: to(['Failed'], stay),
    wake: to(['Failed'], stay),
    reconnect: to(['Dialing'], startAgain),
    close: to(['Closed'], (c) => shut(c)),
  },
  Closed: {
    request: to(['Closed'], (c, state, { ticket }) => {
      fail(c, ticket, { code: 'CLOSED', outcome: 'not-sent', what: 'the client is closed' })
      return state
    }),
    abort: to(['Closed'], stay),
    wake: to(['Closed'], stay),
    reconnect: to(['Closed'], stay),
    close: to(['Closed'], stay),
  },
}

// ---- connecting

function dial(c: Context): In<'Dialing'> {
  const conn = ++c.conns
  c.effects.push({ type: 'dial', conn })
  return { kind: 'Dialing', conn, until: c.now + c.options.dialMs }
}

function startAgain(c: Context): In<'Dialing'> {
  c.attempts = 0
  c.budgetEnd = c.now + budget(c)
  return dial(c)
}

function greet(c: Context, { conn }: In<'Dialing'>): In<'Greeting'> {
  const { service, greetingMs } = c.options
  c.effects.push({ type: 'write', conn, bytes: Uint8Array.of(service.byte) })
  return { kind: 'Greeting', conn, decoder: new FrameDecoder(service.messageSize ?? MESSAGE_SIZE), until: c.now + greetingMs }
}

function readGreeting(
  c: Context,
  state: In<'Greeting'>,
  { chunk }: EventOf<'bytes'>,
): In<'Greeting' | 'Ready' | 'Due' | 'Failed'> {
  const { conn, decoder } = state
  const [frame, ...more] = decoder.push(chunk)
  if (frame === undefined) return state
  try {
    c.options.service.checkGreeting(frame)
  } catch (error) {
    return tryAgain(c, 'protocol', notTheGreeting(c.options, error), conn)
  }
  if (more.length > 0 || decoder.pending > 0) return tryAgain(c, 'protocol', unasked(c.options), conn)
  c.lastFailure = undefined
  return { kind: 'Ready', channel: { conn, decoder, clean: true, since: c.now, proven: false } }
}

/** Leaves a connection that was ready: the budget is full again. */
function lose(c: Context, channel: Channel, reason: ReconnectReason, cause: unknown): In<'Due' | 'Failed'> {
  c.budgetEnd = c.now + budget(c)
  // A guest that greets and hangs up at once is not called every few milliseconds: each connection costs a 5.10 or 6.1 guest a
  // kernel warning (protocol, fact 15).
  const lasted = c.options.pace !== undefined && c.now - channel.since >= c.options.pace.maxDelayMs
  if (channel.proven || lasted) c.attempts = 0
  return tryAgain(c, reason, cause, channel.conn)
}

function tryAgain(c: Context, reason: ReconnectReason, cause: unknown, conn?: number): In<'Due' | 'Failed'> {
  const { pace } = c.options
  if (pace === undefined) return giveUp(c, endedBy(cause), conn)
  const attempt = ++c.attempts
  let delayMs: number
  try {
    delayMs = backoffDelay(pace, attempt)
  } catch (error) {
    return giveUp(c, endedBy(error), conn)
  }
  drop(c, conn)
  c.lastFailure = cause
  c.effects.push({ type: 'reconnect', attempt, delayMs, reason, cause })
  return { kind: 'Due', at: c.now + delayMs }
}

/** A new connection at once and off budget: the next request needs one without a failed reply before it. */
function refresh(c: Context, channel: Channel): In<'Dialing'> {
  drop(c, channel.conn)
  c.effects.push({ type: 'reconnect', attempt: 0, delayMs: 0, reason: 'clean-channel' })
  return startAgain(c)
}

function giveUp(c: Context, failure: Failure, conn?: number): In<'Failed'> {
  drop(c, conn)
  for (const ticket of c.queue.takeAll()) fail(c, ticket, unreachable(failure))
  return { kind: 'Failed', failure }
}

function shut(c: Context, conn?: number): In<'Closed'> {
  drop(c, conn)
  for (const ticket of c.queue.takeAll()) fail(c, ticket, { code: 'CLOSED', outcome: 'not-sent', what: 'the client was closed' })
  return { kind: 'Closed' }
}

function drop(c: Context, conn: number | undefined): void {
  if (conn !== undefined) c.effects.push({ type: 'drop', conn })
}

function budget(c: Context): number {
  return c.options.pace?.budgetMs ?? Number.POSITIVE_INFINITY
}

// ---- requests

function enqueue<S extends Session>(c: Context, state: S, { ticket }: EventOf<'request'>): S {
  const { queue } = c.options
  if (queue === 'busy') {
    if (state.kind === 'Busy' || c.queue.length > 0)
      fail(c, ticket, { code: 'BUSY', outcome: 'not-sent', what: 'another request is under way' })
    else c.queue.push(ticket)
  } else if (state.kind === 'Ready' || c.queue.length < queue.limit) {
    c.queue.push(ticket)
  } else {
    fail(c, ticket, { code: 'QUEUE_FULL', outcome: 'not-sent', what: `${queue.limit} requests are waiting already` })
  }
  return state
}

function sendNext(c: Context, state: In<'Ready'>): In<'Ready' | 'Busy' | 'Dialing'> {
  const ticket = c.queue.first
  if (ticket === undefined) return state
  const { channel } = state
  if (ticket.needsClean && !channel.clean) return refresh(c, channel)
  c.queue.shift()
  c.effects.push({ type: 'write', conn: channel.conn, bytes: ticket.bytes })
  return { kind: 'Busy', channel, ticket, replyBy: c.now + ticket.replyTimeoutMs }
}

function readReply(c: Context, state: In<'Busy'>, { chunk }: EventOf<'bytes'>): In<'Busy' | 'Ready' | 'Due' | 'Failed'> {
  const { ticket } = state
  const { service } = c.options
  const [frame, ...more] = state.channel.decoder.push(chunk)
  if (frame === undefined) return state
  let reply: unknown
  let failed: boolean
  try {
    reply = service.decode(frame, ticket.request)
    failed = service.failed(reply)
  } catch (cause) {
    const what = because('the message is not a reply to it', cause)
    const error = fail(c, ticket, { code: 'PROTOCOL', outcome: 'indeterminate', what, cause })
    return lose(c, state.channel, 'protocol', error)
  }
  c.effects.push({ type: 'reply', id: ticket.id, reply, failed })
  const channel = { ...state.channel, proven: true, clean: state.channel.clean && !failed }
  if (more.length > 0 || channel.decoder.pending > 0) return lose(c, channel, 'protocol', unasked(c.options))
  return { kind: 'Ready', channel }
}

function abortWaiting<S extends Session>(c: Context, state: S, { id, reason }: EventOf<'abort'>): S {
  const ticket = c.queue.remove(id)
  if (ticket !== undefined)
    fail(c, ticket, { code: 'ABORTED', outcome: 'not-sent', what: 'aborted while it waited to be sent', cause: reason })
  return state
}

/** Rejects the requests that waited too long to be sent. It concerns every state alike, so it happens before a state sees any event. */
export function expire(c: Context): void {
  for (const ticket of c.queue.takeExpired(c.now)) {
    const what = 'its time ran out before it could be sent'
    fail(c, ticket, { code: 'TIMEOUT', outcome: 'not-sent', what, cause: c.lastFailure })
  }
}

function fail(c: Context, ticket: Ticket, reason: Reason): UpcallError {
  const error = requestError(c.options.remote, ticket.op, reason)
  c.effects.push({ type: 'fail', id: ticket.id, error })
  return error
}
