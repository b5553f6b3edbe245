/**
 * Tests a client or a transport without a guest: connections in memory, injected faults, a clock that a test moves, guests that are
 * functions, and a compliance suite for transports. It depends on no test runner.
 *
 * @packageDocumentation
 */

export { ManualClock, type ManualClockOptions, settle } from '@upcall/foundation/testing/manual-clock'
export { SkippingClock } from '@upcall/foundation/testing/skipping-clock'
export type { ComplianceOptions, ComplianceTest } from './compliance/bounded-test.js'
export { transportCompliance } from './compliance/index.js'
export { memoryTransport } from './compliance/memory-transport.js'
export { guestInitiatedTransport, hybridTransport, unixTransport } from './compliance/socket-transports.js'
export type {
  ComplianceConnectOptions,
  ComplianceFeatures,
  ComplianceListener,
  ComplianceTransport,
} from './compliance/transport.js'
export { vsockTransport } from './compliance/vsock-transport.js'
export { dialSequence, faultyDial } from './dial.js'
export { type DuplexPairOptions, duplexPair } from './duplex-pair.js'
export { ClientGone, FakeConnection } from './fake-connection.js'
export { type FakeGuest, type FakeGuestOptions, fakeGuest, type GuestScript } from './fake-guest.js'
export type { DirectionPlan, FaultPlan } from './fault-plan.js'
export { type Direction, type FaultEvent, FaultStream, faulty } from './faulty.js'
export { type OpenResources, openResources, withoutLeaks } from './leaks.js'
export { type SimulatedDial, type SimulatedDialOptions, simulatedDial } from './simulated-dial.js'
