import type { FrameDecoder } from '@upcall/wire'

/** The states of a session as its user sees them. The names are those of dbs-upcall. */
export type StateName = 'WaitingServer' | 'WaitingService' | 'ServiceConnected' | 'ServiceBusy' | 'ReconnectError' | 'Closed'

/** A request on its way. It was encoded when it was made, so that nothing the caller does later changes it. */
export interface Ticket {
  readonly id: number
  readonly request: unknown
  /** What is sent, in one write. */
  readonly bytes: Uint8Array
  /** The request in a few words, for errors. */
  readonly op: string
  readonly needsClean: boolean
  /** Milliseconds from the write. */
  readonly replyTimeoutMs: number
  /** When the caller stops waiting, in whatever state the request is then. */
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
  /** A reply arrived on it. */
  readonly proven: boolean
}

/** Why the session gave up. */
export interface Failure {
  /** The clause of the errors that come of it: the bound, if one ended the attempts, and the last reason. */
  readonly what: string
  readonly cause: unknown
}

/** A session. Each variant holds what that state needs and nothing else; only Busy holds a request. All times are absolute. */
export type Session =
  /** Between two attempts. */
  | { readonly kind: 'Due'; readonly at: number }
  | { readonly kind: 'Dialing'; readonly conn: number; readonly until: number }
  /** Connected; the service byte is sent, and the greeting has not arrived. */
  | { readonly kind: 'Greeting'; readonly conn: number; readonly decoder: FrameDecoder; readonly until: number }
  | { readonly kind: 'Ready'; readonly channel: Channel }
  /** A request is written, and its reply has not arrived. */
  | { readonly kind: 'Busy'; readonly channel: Channel; readonly ticket: Ticket; readonly replyBy: number }
  /** No more attempts are made until `reconnect`. */
  | { readonly kind: 'Failed'; readonly failure: Failure }
  | { readonly kind: 'Closed' }

export type Kind = Session['kind']
export type In<K extends Kind> = Extract<Session, { kind: K }>

/** To the user, waiting for the next attempt and attempting are one state. */
export const stateNames: Record<Kind, StateName> = {
  Due: 'WaitingServer',
  Dialing: 'WaitingServer',
  Greeting: 'WaitingService',
  Ready: 'ServiceConnected',
  Busy: 'ServiceBusy',
  Failed: 'ReconnectError',
  Closed: 'Closed',
}

/** The connection that a state is about. Events of other connections arrive too late and mean nothing. */
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
