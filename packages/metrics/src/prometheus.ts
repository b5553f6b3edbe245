/**
 * Metrics of upcall and vsock for Prometheus, by prom-client, and an HTTP server for them.
 *
 * @packageDocumentation
 */

export type { Detail } from './catalog.js'
export { isMetricsError, MetricsError, type MetricsErrorCode } from './errors.js'
export type { ObservedDevice } from './observe/devices.js'
export { type ListenAddress, parseListenAddress } from './prometheus/address.js'
export { type CollectOptions, collectMetrics, type PrometheusMetrics } from './prometheus/collect.js'
export { exposeMetrics } from './prometheus/expose.js'
export { type MetricsServer, type ServeOptions, serveMetrics } from './prometheus/serve.js'
