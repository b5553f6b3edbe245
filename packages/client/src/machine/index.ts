/**
 * The session with a service as a pure state machine: events and the time go in, effects come out. It needs no platform, so it runs
 * in a browser, too.
 *
 * @packageDocumentation
 */

export {
  ClosedError,
  isUpcallError,
  type Outcome,
  ProtocolError,
  TimeoutError,
  UpcallError,
  type UpcallErrorCode,
} from '../error.js'
export type { Service } from '../service.js'
export type { Pace, SessionOptions } from './context.js'
export type { Effect, OutsideEvent, ReconnectReason, SessionEvent } from './event.js'
export { SessionMachine } from './session-machine.js'
export type { Channel, Failure, Kind, Session, StateName, Ticket } from './state.js'
