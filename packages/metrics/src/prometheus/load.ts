import { peer } from '../errors.js'

export type Prometheus = Pick<
  typeof import('prom-client'),
  'Counter' | 'Gauge' | 'Histogram' | 'Registry' | 'register' | 'collectDefaultMetrics'
>

/** @throws MetricsError `PEER_MISSING` */
export async function loadPrometheus(op: string): Promise<Prometheus> {
  const loaded = await peer(op, 'prom-client', () => import('prom-client'))
  // Node finds no names in some of the modules that are CommonJS.
  return 'default' in loaded ? (loaded.default as Prometheus) : loaded
}
