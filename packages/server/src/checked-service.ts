// Services come from outside, some of them without types: what they return is checked before it can do harm to other connections.

import { checkFunction, wrongType } from '@upcall/foundation/check'
import { ignoreRejection, isPromise, synchronous } from '@upcall/foundation/returned'
import { show } from '@upcall/foundation/show'
import { ReplySource } from './replies.js'
import type { GuestConnection, GuestService, GuestSession } from './service.js'

/** @throws What the service throws; TypeError if it returns neither true nor false. */
export function isAvailable(service: GuestService, now: number): boolean {
  if (service.available === undefined) return true
  const available: unknown = service.available(now)
  ignoreRejection(available)
  if (typeof available !== 'boolean') throw new TypeError(`available: must return true or false, got ${show(available)}`)
  return available
}

/**
 * Opens a session of which only this is certain: it can be closed. So it is, with its connection, whatever else is wrong with it.
 *
 * @throws What the service throws; TypeError if it does not return a session.
 */
export function openSession(service: GuestService, connection: GuestConnection): GuestSession {
  const session: unknown = synchronous('open', service.open(connection))
  if (typeof session !== 'object' || session === null) throw new TypeError(`open: must return a session, got ${show(session)}`)
  checkFunction('close', (session as Partial<GuestSession>).close)
  return session as GuestSession
}

/** The greeting of a session that can receive. @throws TypeError */
export function greetingOf(session: GuestSession): Uint8Array {
  const { greeting } = session
  if (!(greeting instanceof Uint8Array)) wrongType('greeting', 'a Uint8Array', greeting)
  checkFunction('receive', session.receive)
  return greeting
}

/** Gives the session a chunk. @throws What the service throws; TypeError if it does not return replies. Rejects in the same way. */
export function repliesOf(session: GuestSession, chunk: Uint8Array, now: number): ReplySource | Promise<ReplySource> {
  const replies: unknown = session.receive(chunk, now)
  return isPromise(replies) ? Promise.resolve(replies).then(ReplySource.of) : ReplySource.of(replies)
}
