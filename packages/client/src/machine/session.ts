import type { FrameDecoder } from '@upcall/wire'
import type { UpcallError } from '../error.js'

/** The session's states as the outside sees them. The names are those of dbs-upcall. */
export type StateName = 'WaitingServer' | 'WaitingService' | 'ServiceConnected' | 'ServiceBusy' | 'ReconnectError' | 'Closed'

/** A request on its way: encoded when it was made, so that nothing the caller does later changes it. */
export interface Ticket {
  readonly id: number
  readonly request: unknown
  /** What leaves, in one write. */
  readonly bytes: Uint8Array
  /** The request in a few words. */
  readonly subject: string
  readonly needsClean: boolean
  /** Milliseconds from the write. */
  readonly replyTimeoutMs: number
  /** When the caller stops waiting, whatever the request waits for then. */
  readonly deadline: number
}

/** What is known of a connection on which the service has greeted. */
export interface Channel {
  readonly conn: number
  readonly decoder: FrameDecoder
  /** No failed reply yet. The kernel repeats a failure's errno on a later PCI success (protocol, fact 3). */
  readonly clean: boolean
  /** When the service greeted. */
  readonly since: number
  /** A reply came on it. */
  readonly proven: boolean
}

/** The session. Each variant holds what that state needs and nothing else; only Busy holds a request. All times are absolute. */
export type Session =
  | { readonly kind: 'Due'; readonly at: number }
  | { readonly kind: 'Dialing'; readonly conn: number; readonly until: number }
  | { readonly kind: 'Greeting'; readonly conn: number; readonly decoder: FrameDecoder; readonly until: number }
  | { readonly kind: 'Ready'; readonly channel: Channel }
  | { readonly kind: 'Busy'; readonly channel: Channel; readonly ticket: Ticket; readonly replyBy: number }
  | { readonly kind: 'Failed'; readonly cause: unknown }
  | { readonly kind: 'Closed' }

export type Kind = Session['kind']
export type In<K extends Kind> = Extract<Session, { kind: K }>

/** Waiting for the next attempt and attempting are one state to the outside. */
export const stateNames: Record<Kind, StateName> = {
  Due: 'WaitingServer',
  Dialing: 'WaitingServer',
  Greeting: 'WaitingService',
  Ready: 'ServiceConnected',
  Busy: 'ServiceBusy',
  Failed: 'ReconnectError',
  Closed: 'Closed',
}

/** The connection that a state is about. Events of any other one come too late and mean nothing. */
export function connOf(session: Session): number | undefined {
  switch (session.kind) {
    case 'Dialing':
    case 'Greeting':
      return session.conn
    case 'Ready':
    case 'Busy':
      return session.channel.conn
    default:
      return undefined
  }
}

/** Everything that can happen to a session. */
export type SessionEvent =
  /** The dialer delivered a stream, past any handshake. */
  | { readonly type: 'dialed'; readonly conn: number }
  /** The dialer gave up. `final`: trying again is pointless. */
  | { readonly type: 'dialFailed'; readonly conn: number; readonly error: unknown; readonly final: boolean }
  | { readonly type: 'bytes'; readonly conn: number; readonly chunk: Uint8Array }
  /** EOF, reset or an error: nothing more can be read. */
  | { readonly type: 'ended'; readonly conn: number; readonly error?: unknown }
  /** The write asked for was not begun, because the stream could not be written to any more. */
  | { readonly type: 'unsent'; readonly conn: number; readonly error?: unknown }
  | { readonly type: 'request'; readonly ticket: Ticket }
  /** The caller does not want the request any more. */
  | { readonly type: 'abort'; readonly id: number; readonly reason: unknown }
  /** The machine's own: it is ready and a request waits. */
  | { readonly type: 'next' }
  /** Time has passed. Harmless when nothing is due. */
  | { readonly type: 'wake' }
  /** Start afresh after Failed; do not wait any longer when Due. */
  | { readonly type: 'reconnect' }
  | { readonly type: 'close' }

export type EventType = SessionEvent['type']
/** What a driver may tell the machine. */
export type OutsideEvent = Exclude<SessionEvent, { type: 'next' }>
export type EventOf<E extends EventType> = Extract<SessionEvent, { type: E }>

/**
 * Why a new connection is made: the dial failed or took too long, the greeting took too long or was wrong, the connection ended,
 * the peer broke the protocol, a request that was sent timed out or was aborted, or the next request needs a clean channel.
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
  | { readonly type: 'reply'; readonly id: number; readonly reply: unknown }
  | { readonly type: 'fail'; readonly id: number; readonly error: UpcallError }
  | { readonly type: 'state'; readonly state: StateName; readonly previous: StateName; readonly cause?: unknown }
  | {
      readonly type: 'reconnect'
      readonly attempt: number
      readonly delayMs: number
      readonly reason: ReconnectReason
      readonly cause?: unknown
    }
