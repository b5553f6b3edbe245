import type { UpcallError } from '../error.js'
import type { StateName, Ticket } from './state.js'

/** Everything that can happen to a session. */
export type SessionEvent =
  /** The dialer delivered a stream, after any handshake. */
  | { readonly type: 'dialed'; readonly conn: number }
  /** The dialer failed. `final`: another attempt is pointless. */
  | { readonly type: 'dialFailed'; readonly conn: number; readonly error: unknown; readonly final: boolean }
  | { readonly type: 'bytes'; readonly conn: number; readonly chunk: Uint8Array }
  /** EOF, a reset or an error: nothing more can be read. */
  | { readonly type: 'ended'; readonly conn: number; readonly error?: unknown }
  /** The write did not begin, because the stream was not writable any more. */
  | { readonly type: 'unsent'; readonly conn: number; readonly error?: unknown }
  | { readonly type: 'request'; readonly ticket: Ticket }
  /** The caller gave the request up. */
  | { readonly type: 'abort'; readonly id: number; readonly reason: unknown }
  /** The machine's own: it is ready and a request waits. */
  | { readonly type: 'next' }
  /** Time has passed. Harmless if nothing is due. */
  | { readonly type: 'wake' }
  /** Start again after Failed; do not wait any longer in Due. */
  | { readonly type: 'reconnect' }
  | { readonly type: 'close' }

export type EventType = SessionEvent['type']
/** What a driver may tell the machine. */
export type OutsideEvent = Exclude<SessionEvent, { type: 'next' }>
export type EventOf<E extends EventType> = Extract<SessionEvent, { type: E }>

/**
 * Why the session makes a new connection: the dial failed or took too long, the greeting took too long or was wrong, the connection
 * ended, the peer broke the protocol, a request timed out or was aborted after it was sent, or the next request needs a clean channel.
 */
export type ReconnectReason =
  | 'dial-failed'
  | 'dial-timeout'
  | 'greeting-timeout'
  | 'disconnected'
  | 'protocol'
  | 'request-timeout'
  | 'request-aborted'
  | 'clean-channel'

/** Everything that a session asks of its driver, in order. */
export type Effect =
  | { readonly type: 'dial'; readonly conn: number }
  | { readonly type: 'write'; readonly conn: number; readonly bytes: Uint8Array }
  /** Abort the dial or destroy the stream. */
  | { readonly type: 'drop'; readonly conn: number }
  /** `failed`: the guest refused. */
  | { readonly type: 'reply'; readonly id: number; readonly reply: unknown; readonly failed: boolean }
  | { readonly type: 'fail'; readonly id: number; readonly error: UpcallError }
  | { readonly type: 'state'; readonly state: StateName; readonly previous: StateName; readonly cause?: unknown }
  | {
      readonly type: 'reconnect'
      readonly attempt: number
      readonly delayMs: number
      readonly reason: ReconnectReason
      readonly cause?: unknown
    }
