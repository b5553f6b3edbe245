// The errors that the rules of a session make, in words.

import { textOf } from '@upcall/foundation/error'
import { errorOf, type Outcome, ProtocolError, TimeoutError, UpcallError, type UpcallErrorCode } from '../error.js'
import type { Context, SessionOptions } from './context.js'
import type { Failure, Ticket } from './state.js'

/** Why a request failed, without the request. */
export interface Reason {
  readonly code: UpcallErrorCode
  readonly outcome: Outcome
  readonly what: string
  readonly cause?: unknown
}

const NEXT = {
  indeterminate: 'The guest may have done it: look before you repeat it.',
  'not-sent': 'Nothing was sent, so it is safe to repeat.',
  'guest-error': undefined,
} satisfies Record<Outcome, string | undefined>

/** Codes of requests that were not sent and may succeed when they are repeated, although the caller changes nothing. */
const PASSING: ReadonlySet<UpcallErrorCode> = new Set(['TIMEOUT', 'BUSY', 'QUEUE_FULL'])

/** The error with which one request is rejected. */
export function requestError(remote: string, op: string, { code, outcome, what, cause }: Reason): UpcallError {
  const next =
    code === 'UNREACHABLE'
      ? 'Nothing was sent. Call reconnect() to try again.'
      : code === 'CLOSED' && outcome === 'not-sent'
        ? 'Nothing was sent. Make a new client.'
        : NEXT[outcome]
  const retryable = outcome === 'not-sent' && PASSING.has(code)
  return errorOf({ code, outcome, op, subject: remote, what, next, retryable, cause })
}

export function unreachable({ what, cause }: Failure): Reason {
  return { code: 'UNREACHABLE', outcome: 'not-sent', what, cause }
}

/** The attempts ended because of one error: it was final, or reconnecting is off. */
export function endedBy(cause: unknown): Failure {
  return { what: `unreachable, last attempt: ${textOf(cause)}`, cause }
}

/** The attempts ended because the budget is spent. `unfinished`: what the session was waiting for. */
export function budgetSpent({ options, lastFailure }: Context, unfinished: string): Failure {
  const { remote, pace } = options
  const last = lastFailure === undefined ? unfinished : textOf(lastFailure)
  const what = (state: string) => `${state} within ${pace?.budgetMs} ms, last attempt: ${last}`
  const cause = new TimeoutError({
    outcome: 'not-sent',
    op: 'connect',
    subject: remote,
    what: what('not ready'),
    next: 'Call reconnect() to try again.',
    cause: lastFailure,
  })
  return { what: what('unreachable'), cause }
}

export function late({ remote }: SessionOptions, what: string): TimeoutError {
  const next = 'Check that the guest is running and that its upcall server is up.'
  return new TimeoutError({ outcome: 'not-sent', op: 'connect', subject: remote, what, next })
}

export function notTheGreeting({ remote }: SessionOptions, cause: unknown): ProtocolError {
  const what = because("the greeting is not the service's", cause)
  return new ProtocolError({ outcome: 'not-sent', op: 'connect', subject: remote, what, next: 'Check the port.', cause })
}

/** When a connection ended that may be too early for the guest. */
export const BEFORE_GREETING = 'before the service greeted'

export function disconnected({ remote, pace }: SessionOptions, when: string, cause: unknown): UpcallError {
  const booting = when === BEFORE_GREETING ? 'The guest may still be booting. ' : ''
  return new UpcallError({
    code: 'DISCONNECTED',
    outcome: 'not-sent',
    op: 'connect',
    subject: remote,
    what: because(`the connection ended ${when}`, cause),
    next: `${booting}${pace === undefined ? 'Call reconnect() for a new connection.' : 'The client makes a new connection.'}`,
    cause,
  })
}

export function unasked({ remote }: SessionOptions): ProtocolError {
  return new ProtocolError({
    outcome: 'not-sent',
    op: 'read',
    subject: remote,
    what: 'bytes arrived that no request asked for',
    next: 'Replies can no longer be told apart, so the connection is dropped.',
  })
}

/** How far the reply came on a connection that ended. */
export function endOfReply(got: number, size: number, cause: unknown): string {
  const when = got === 0 ? 'before the reply' : `after ${got} of ${size} bytes of the reply`
  return because(`the connection ended ${when}`, cause)
}

/** What happened, and the reason that a stream or a service gave for it. */
export function because(what: string, cause: unknown): string {
  return cause === undefined ? what : `${what}: ${textOf(cause)}`
}

export function lateReply(ticket: Ticket, replyBy: number): string {
  return replyBy <= ticket.deadline ? `no reply within ${ticket.replyTimeoutMs} ms` : "no reply within the caller's time limit"
}
