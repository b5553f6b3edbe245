import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ClientTrace, UpcallClient } from '@upcall/client'
import { Conversation, type ConversationEvent, type ConversationOptions } from './conversation/conversation.js'

/** An event of a client's connection. `conn` counts the client's connections from 1, those that failed included. */
export type ClientEvent = ConversationEvent & { readonly conn: number }

export interface TraceClientOptions extends Pick<ConversationOptions, 'arch' | 'fallbackArch' | 'raw'> {
  /** Milliseconds. Default `performance.now`. */
  now?: (() => number) | undefined
}

const CHANNEL = 'upcall:client'

/**
 * Follows a client of this process through the diagnostics channel `upcall:client`. The states are the client's own, all of those in
 * docs/machines.md, and the bytes are what it writes and reads, after any handshake.
 *
 * @returns what ends it.
 */
export function traceClient<Req, Rep>(
  client: UpcallClient<Req, Rep>,
  listener: (event: ClientEvent) => void,
  { now = () => performance.now(), ...options }: TraceClientOptions = {},
): Disposable {
  const conversations = new Map<number, Conversation>()
  let last = 0

  const tell = (conn: number, events: readonly ConversationEvent[]) => {
    // The client knows its state better than the bytes tell it.
    for (const event of events) if (event.type !== 'state') listener({ ...event, conn })
  }
  const conversationOf = (conn: number) => {
    last = conn
    const found = conversations.get(conn) ?? new Conversation(options)
    conversations.set(conn, found)
    return found
  }
  const over = (conn: number) => {
    const conversation = conversations.get(conn)
    conversations.delete(conn)
    if (conversation === undefined) return
    for (const direction of ['to-host', 'to-guest'] as const) tell(conn, conversation.end(direction, now()))
  }

  const onMessage = (message: unknown) => {
    const trace = message as ClientTrace
    if ((trace.client as unknown) !== client) return
    if ('kind' in trace) {
      const { kind: state, previous } = trace
      listener({ at: now(), direction: 'to-guest', offset: 0, conn: last, type: 'state', state, previous })
    } else if ('event' in trace) {
      const { event } = trace
      if (event.type === 'bytes' && conversations.has(event.conn))
        tell(event.conn, conversationOf(event.conn).feed('to-host', event.chunk, now()))
      if (event.type === 'ended') over(event.conn)
    } else if ('effect' in trace) {
      const { effect } = trace
      if (effect.type === 'dial') last = effect.conn
      if (effect.type === 'write') tell(effect.conn, conversationOf(effect.conn).feed('to-guest', effect.bytes, now()))
      if (effect.type === 'drop') over(effect.conn)
    }
  }
  subscribe(CHANNEL, onMessage)
  return {
    [Symbol.dispose]() {
      unsubscribe(CHANNEL, onMessage)
    },
  }
}
