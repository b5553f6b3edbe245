// The session's state, as the diagnostics channel of the client tells it.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ClientTrace } from '@upcall/client'
import { messageFor } from '@upcall/foundation/error'
import type { SessionView, Time } from './events.js'

const CHANNEL = 'upcall:client'

/** Follows one client's state. */
export function followSession(client: object, wall: () => Time, listener: (session: SessionView) => void): Disposable {
  let session: SessionView | undefined
  let cause: unknown
  const onMessage = (message: unknown) => {
    const trace = message as ClientTrace
    if (trace.client !== client) return
    if ('kind' in trace) {
      session = { kind: trace.kind, since: wall() }
      if (isWaiting(session) && cause !== undefined) session.cause = messageFor(cause)
      else if (session.kind === 'Ready') cause = undefined
      listener(session)
    } else if ('effect' in trace && 'cause' in trace.effect && trace.effect.cause !== undefined) {
      cause = trace.effect.cause
      // The effects of one step follow one another: some come before the new state, some after it.
      if (session === undefined || !isWaiting(session) || session.cause === messageFor(cause)) return
      session = { ...session, cause: messageFor(cause) }
      listener(session)
    }
  }
  subscribe(CHANNEL, onMessage)
  return { [Symbol.dispose]: () => void unsubscribe(CHANNEL, onMessage) }
}

/** In these states a person wants to know why. */
function isWaiting({ kind }: SessionView): boolean {
  return kind === 'Due' || kind === 'Failed'
}
