// The session's rules, all of them: what each state does with each event. An event that has no entry cannot happen in that state and
// is a mistake of the driver. Everything a handler wants done is an effect; the state it returns is the next one.

import { FrameDecoder, MESSAGE_SIZE } from '@upcall/wire'
import { errorOf, type Outcome, ProtocolError, TimeoutError, UpcallError, type UpcallErrorCode } from '../error.js'
import { backoff, type Context } from './context.js'
import type { Channel, EventOf, EventType, In, Kind, ReconnectReason, Session, Ticket } from './session.js'

type Handler<K extends Kind, E extends EventType> = (c: Context, state: In<K>, event: EventOf<E>) => Session
type Row<K extends Kind> = { readonly [E in EventType]?: Handler<K, E> }

export const table: { readonly [K in Kind]: Row<K> } = {
  Due: {
    request: enqueue,
    abort: abortWaiting,
    wake: (c, state) => (c.now >= c.budgetEnd ? giveUp(c, budgetSpent(c)) : c.now >= state.at ? dial(c) : state),
    reconnect: startAfresh,
    close,
  },
  Dialing: {
    dialed: greet,
    dialFailed: (c, _state, { error, final }) => (final ? giveUp(c, error) : tryAgain(c, 'dial-failed', error)),
    // The driver tells of a stream that ended only after it has told of the stream.
    request: enqueue,
    abort: abortWaiting,
    wake(c, state) {
      if (c.now >= c.budgetEnd) return giveUp(c, budgetSpent(c), state.conn)
      if (c.now < state.until) return state
      return tryAgain(c, 'dial-timeout', late(c, `no connection within ${c.options.dialMs} ms`), state.conn)
    },
    reconnect: (_c, state) => state,
    close,
  },
  Greeting: {
    bytes: readGreeting,
    ended: (c, state, { error }) =>
      tryAgain(c, 'disconnected', ended(c, 'before the service greeted: the guest may still be booting', error), state.conn),
    unsent: (c, state, { error }) => tryAgain(c, 'disconnected', ended(c, 'before the service byte was sent', error), state.conn),
    request: enqueue,
    abort: abortWaiting,
    wake(c, state) {
      if (c.now >= c.budgetEnd) return giveUp(c, budgetSpent(c), state.conn)
      if (c.now < state.until) return state
      return tryAgain(c, 'greeting-timeout', late(c, `the service did not greet within ${c.options.greetingMs} ms`), state.conn)
    },
    reconnect: (_c, state) => state,
    close,
  },
  Ready: {
    bytes: (c, { channel }) => lose(c, channel, 'protocol', unasked(c)),
    ended: (c, { channel }, { error }) => lose(c, channel, 'disconnected', ended(c, 'while idle', error)),
    request: enqueue,
    next: sendNext,
    abort: abortWaiting,
    wake: (_c, state) => state,
    reconnect: (_c, state) => state,
    close,
  },
  Busy: {
    bytes: readReply,
    ended(c, { channel, ticket }, { error }) {
      const got = channel.decoder.pending
      const what =
        got === 0
          ? 'the connection ended before the reply'
          : `the connection ended after ${got} of ${channel.decoder.size} bytes of the reply`
      fail(c, ticket, 'DISCONNECTED', 'indeterminate', what, error)
      return lose(c, channel, 'disconnected', ended(c, 'during a request', error))
    },
    unsent(c, { channel, ticket }, { error }) {
      c.queue.unshift(ticket)
      return lose(c, channel, 'disconnected', ended(c, 'before a request was sent', error))
    },
    request: enqueue,
    abort(c, state, event) {
      if (event.id !== state.ticket.id) return abortWaiting(c, state, event)
      fail(c, state.ticket, 'ABORTED', 'indeterminate', 'aborted after it was sent', event.reason)
      return lose(c, state.channel, 'request-aborted', event.reason)
    },
    wake(c, state) {
      const { channel, ticket, replyBy } = state
      if (c.now < Math.min(replyBy, ticket.deadline)) return state
      const what =
        replyBy <= ticket.deadline ? `no reply within ${ticket.replyTimeoutMs} ms` : "no reply within the caller's time limit"
      // A late reply would be taken for the next one: only a new connection resynchronises (protocol, fact 17).
      return lose(c, channel, 'request-timeout', fail(c, ticket, 'TIMEOUT', 'indeterminate', what))
    },
    reconnect: (_c, state) => state,
    close(c, { channel, ticket }) {
      fail(c, ticket, 'CLOSED', 'indeterminate', 'the client was closed before the reply')
      return shut(c, channel.conn)
    },
  },
  Failed: {
    request(c, state, { ticket }) {
      fail(
        c,
        ticket,
        'UNREACHABLE',
        'not-sent',
        'there is no connection and no more attempt is made until reconnect() is called',
        state.cause,
      )
      return state
    },
    abort: (_c, state) => state,
    wake: (_c, state) => state,
    reconnect: startAfresh,
    close: (c) => shut(c),
  },
  Closed: {
    request(c, state, { ticket }) {
      fail(c, ticket, 'CLOSED', 'not-sent', 'the client is closed')
      return state
    },
    abort: (_c, state) => state,
    wake: (_c, state) => state,
    reconnect: (_c, state) => state,
    close: (_c, state) => state,
  },
}

// ---- connecting

function dial(c: Context): Session {
  const conn = ++c.conns
  c.effects.push({ type: 'dial', conn })
  return { kind: 'Dialing', conn, until: c.now + c.options.dialMs }
}

function startAfresh(c: Context): Session {
  c.attempts = 0
  c.budgetEnd = c.now + budget(c)
  return dial(c)
}

function greet(c: Context, { conn }: In<'Dialing'>): Session {
  const { service, greetingMs } = c.options
  c.effects.push({ type: 'write', conn, bytes: Uint8Array.of(service.byte) })
  return { kind: 'Greeting', conn, decoder: new FrameDecoder(service.messageSize ?? MESSAGE_SIZE), until: c.now + greetingMs }
}

function readGreeting(c: Context, state: In<'Greeting'>, { chunk }: EventOf<'bytes'>): Session {
  const { conn, decoder } = state
  const [frame, ...more] = decoder.push(chunk)
  if (frame === undefined) return state
  try {
    c.options.service.checkGreeting(frame)
  } catch (error) {
    const cause = new ProtocolError(
      'not-sent',
      `connect ${c.options.remote}: the greeting is not the service's; is this the right port?`,
      { cause: error },
    )
    return tryAgain(c, 'protocol', cause, conn)
  }
  if (more.length > 0 || decoder.pending > 0) return tryAgain(c, 'protocol', unasked(c), conn)
  c.lastFailure = undefined
  return { kind: 'Ready', channel: { conn, decoder, clean: true, since: c.now, proven: false } }
}

/** Leaves a connection that was ready: the budget is full again. */
function lose(c: Context, channel: Channel, reason: ReconnectReason, cause: unknown): Session {
  c.budgetEnd = c.now + budget(c)
  // A guest that greets and hangs up at once is not called every few milliseconds: each connection costs a 5.10 or 6.1 guest a
  // kernel warning (protocol, fact 15).
  const lasted = c.options.pace !== undefined && c.now - channel.since >= c.options.pace.maxDelayMs
  if (channel.proven || lasted) c.attempts = 0
  return tryAgain(c, reason, cause, channel.conn)
}

function tryAgain(c: Context, reason: ReconnectReason, cause: unknown, conn?: number): Session {
  const { pace } = c.options
  if (pace === undefined) return giveUp(c, cause, conn)
  drop(c, conn)
  c.lastFailure = cause
  const attempt = ++c.attempts
  let delayMs: number
  try {
    delayMs = backoff(pace, attempt)
  } catch (error) {
    return giveUp(c, error)
  }
  c.effects.push({ type: 'reconnect', attempt, delayMs, reason, cause })
  return { kind: 'Due', at: c.now + delayMs }
}

/** A new connection at once and off budget, because the next request needs one without a failed reply behind it. */
function refresh(c: Context, channel: Channel): Session {
  drop(c, channel.conn)
  c.attempts = 0
  c.budgetEnd = c.now + budget(c)
  c.effects.push({ type: 'reconnect', attempt: 0, delayMs: 0, reason: 'clean-channel' })
  return dial(c)
}

function giveUp(c: Context, cause: unknown, conn?: number): Session {
  drop(c, conn)
  for (const ticket of c.queue.takeAll()) {
    fail(
      c,
      ticket,
      'UNREACHABLE',
      'not-sent',
      'the guest could not be reached and no more attempt is made until reconnect() is called',
      cause,
    )
  }
  return { kind: 'Failed', cause }
}

function close(c: Context, state: In<'Due' | 'Dialing' | 'Greeting' | 'Ready'>): Session {
  return shut(c, 'conn' in state ? state.conn : 'channel' in state ? state.channel.conn : undefined)
}

function shut(c: Context, conn?: number): Session {
  drop(c, conn)
  for (const ticket of c.queue.takeAll()) fail(c, ticket, 'CLOSED', 'not-sent', 'the client was closed')
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
    if (state.kind === 'Busy' || c.queue.length > 0) fail(c, ticket, 'BUSY', 'not-sent', 'another request is under way')
    else c.queue.push(ticket)
  } else if (state.kind === 'Ready' || c.queue.length < queue.limit) {
    c.queue.push(ticket)
  } else {
    fail(c, ticket, 'QUEUE_FULL', 'not-sent', `${queue.limit} requests are waiting already`)
  }
  return state
}

function sendNext(c: Context, state: In<'Ready'>): Session {
  const ticket = c.queue.first
  if (ticket === undefined) return state
  const { channel } = state
  if (ticket.needsClean && !channel.clean) return refresh(c, channel)
  c.queue.shift()
  c.effects.push({ type: 'write', conn: channel.conn, bytes: ticket.bytes })
  return { kind: 'Busy', channel, ticket, replyBy: c.now + ticket.replyTimeoutMs }
}

function readReply(c: Context, state: In<'Busy'>, { chunk }: EventOf<'bytes'>): Session {
  const { ticket } = state
  const { service } = c.options
  const [frame, ...more] = state.channel.decoder.push(chunk)
  if (frame === undefined) return state
  let reply: unknown
  let clean: boolean
  try {
    reply = service.decode(frame, ticket.request)
    clean = state.channel.clean && !service.failed(reply)
  } catch (error) {
    return lose(c, state.channel, 'protocol', fail(c, ticket, 'PROTOCOL', 'indeterminate', 'what came is no reply to it', error))
  }
  c.effects.push({ type: 'reply', id: ticket.id, reply })
  const channel = { ...state.channel, proven: true, clean }
  if (more.length > 0 || channel.decoder.pending > 0) return lose(c, channel, 'protocol', unasked(c))
  return { kind: 'Ready', channel }
}

function abortWaiting<S extends Session>(c: Context, state: S, { id, reason }: EventOf<'abort'>): S {
  const ticket = c.queue.remove(id)
  if (ticket !== undefined) fail(c, ticket, 'ABORTED', 'not-sent', 'aborted while it waited to be sent', reason)
  return state
}

/** Rejects what waited too long to be sent. It concerns every state alike, so it happens before a state sees any event. */
export function expire(c: Context): void {
  for (const ticket of c.queue.takeExpired(c.now))
    fail(c, ticket, 'TIMEOUT', 'not-sent', 'its time ran out before it could be sent', c.lastFailure)
}

// ---- errors

function fail(c: Context, ticket: Ticket, code: UpcallErrorCode, outcome: Outcome, what: string, cause?: unknown): UpcallError {
  const next =
    outcome === 'indeterminate'
      ? 'the guest may have done it: look before you repeat it'
      : 'nothing was sent, so it is safe to repeat'
  const error = errorOf(code, outcome, `${ticket.subject} ${c.options.remote}: ${what}; ${next}`, cause)
  c.effects.push({ type: 'fail', id: ticket.id, error })
  return error
}

function late(c: Context, what: string): TimeoutError {
  return new TimeoutError('not-sent', `connect ${c.options.remote}: ${what}; is the guest running and its upcall server up?`)
}

function ended(c: Context, when: string, cause: unknown): UpcallError {
  const next = c.options.pace === undefined ? 'call reconnect() for a new one' : 'a new one is made'
  return new UpcallError('DISCONNECTED', 'not-sent', `connect ${c.options.remote}: the connection ended ${when}; ${next}`, {
    cause,
  })
}

function unasked(c: Context): ProtocolError {
  return new ProtocolError(
    'not-sent',
    `read ${c.options.remote}: bytes came that no request had asked for; replies can no longer be told apart, so a new connection is made`,
  )
}

function budgetSpent(c: Context): TimeoutError {
  const ms = c.options.pace?.budgetMs ?? 0
  return new TimeoutError(
    'not-sent',
    `connect ${c.options.remote}: not ready within the reconnect budget of ${ms} ms; call reconnect() to try again`,
    {
      cause: c.lastFailure,
    },
  )
}
