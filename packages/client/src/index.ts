/**
 * A session with a service in the guest: a pure state machine and the driver that runs it over any stream.
 *
 * @packageDocumentation
 */

export { type Clock, systemClock } from '@upcall/foundation/clock'
export { type ReconnectEvent, type StateEvent, UpcallClient, type WaitOptions } from './client.js'
export {
  ClosedError,
  isUpcallError,
  type Outcome,
  ProtocolError,
  TimeoutError,
  UpcallError,
  type UpcallErrorCode,
  type UpcallErrorFields,
} from './error.js'
export type { Pace, SessionOptions } from './machine/context.js'
export type { Effect, OutsideEvent, ReconnectReason, SessionEvent } from './machine/event.js'
export { SessionMachine } from './machine/session-machine.js'
export type { Failure, StateName, Ticket } from './machine/state.js'
export type { ClientOptions, Dial, ReconnectOptions, TimeoutOptions } from './options.js'
export type { Service } from './service.js'
