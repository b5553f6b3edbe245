// The session's state, as the diagnostics channel of the client tells it.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ClientTrace } from '@upcall/client'
import { messageFor } from '@upcall/foundation/error'
import type { SessionView, Time } from './events.js'

const CHANNEL = 'upcall:client'

/** Follows one client's state. */
export function followSession(client: object, wall: () => Time, listener: (session: SessionView) => void): Disposable {
  let cause: unknown
  const onMessage = (message: unknown) => {
    const trace = message as ClientTrace
    if (trace.client !== client) return
    // The effect that changes a state comes before the change, and has its cause.
    if ('effect' in trace && 'cause' in trace.effect) cause = trace.effect.cause
    if (!('kind' in trace)) return
    const { kind } = trace
    const explained = (kind === 'Due' || kind === 'Failed') && cause !== undefined
    listener({ kind, since: wall(), ...(explained && { cause: messageFor(cause) }) })
    if (kind === 'Ready') cause = undefined
  }
  subscribe(CHANNEL, onMessage)
  return { [Symbol.dispose]: () => void unsubscribe(CHANNEL, onMessage) }
}
