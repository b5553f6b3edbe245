/**
 * A session with a service in the guest: a pure state machine and the driver that runs it over any stream.
 *
 * @packageDocumentation
 */

export { type Clock, systemClock } from '@upcall/foundation/clock'
export { type ClientTrace, type ReconnectEvent, type StateEvent, UpcallClient, type WaitOptions } from './client.js'
export type { UpcallErrorFields } from './error.js'
export * from './machine/index.js'
export type { ClientOptions, Dial, ReconnectOptions, TimeoutOptions } from './options.js'
