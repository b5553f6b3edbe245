/**
 * A session with a service in the guest: a pure state machine and the driver that runs it over any stream.
 *
 * @packageDocumentation
 */

export { type ReconnectEvent, type StateEvent, UpcallClient, type WaitOptions } from './client.js'
export { type Clock, systemClock } from './clock.js'
export {
  ClosedError,
  isUpcallError,
  type Outcome,
  ProtocolError,
  TimeoutError,
  UpcallError,
  type UpcallErrorCode,
} from './error.js'
export type { Pace, SessionOptions } from './machine/context.js'
export { SessionMachine } from './machine/machine.js'
export type { Effect, OutsideEvent, ReconnectReason, SessionEvent, StateName, Ticket } from './machine/session.js'
export type { ClientOptions, Dial, ReconnectOptions, TimeoutOptions } from './options.js'
export type { Service } from './service.js'
