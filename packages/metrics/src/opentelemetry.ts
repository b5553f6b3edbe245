/**
 * Spans and metrics of upcall and vsock for OpenTelemetry.
 *
 * @packageDocumentation
 */

export type { Detail } from './catalog.js'
export { isMetricsError, MetricsError, type MetricsErrorCode } from './errors.js'
export type { ObservedDevice } from './observe/devices.js'
export { type InstrumentOptions, instrument, type Telemetry } from './opentelemetry/instrument.js'
