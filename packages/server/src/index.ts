/**
 * The guest's end of the upcall channel: accepts, reads the service byte, hands over to a service.
 *
 * @packageDocumentation
 */

export { type Clock, systemClock } from './clock.js'
export type { ServerConnection, ServiceFault } from './connection.js'
export type { Disconnect } from './machine/end.js'
export { UpcallServer, type UpcallServerEvents, type UpcallServerOptions } from './server.js'
export type { GuestConnection, GuestService, GuestSession } from './service.js'
