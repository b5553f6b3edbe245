/**
 * The guest's end of the upcall channel: it accepts a stream, reads the service byte, and hands the connection to its service.
 *
 * @packageDocumentation
 */

export { type Clock, systemClock } from '@upcall/foundation/clock'
export type { ServerConnection, ServiceFault } from './connection.js'
export { ConnectionEndedError, isConnectionEndedError } from './error.js'
export type { Disconnect } from './machine/end.js'
export { UpcallServer, type UpcallServerEvents, type UpcallServerOptions } from './server.js'
export type { GuestConnection, GuestService, GuestSession, Replies } from './service.js'
