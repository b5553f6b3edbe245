import { checkObject } from '@upcall/foundation/check'
import type { Counter, Histogram, Metric, Registry } from 'prom-client'
import {
  CATALOG,
  type CountedKey,
  DURATION_BUCKETS,
  type Labels,
  labelsOf,
  METRIC_KEYS,
  type MetricKey,
  type ReadKey,
} from '../catalog.js'
import { MetricsError } from '../errors.js'
import type { ObservedDevice } from '../observe/devices.js'
import { Observation, type ObservationOptions } from '../observe/observation.js'
import { loadPrometheus, type Prometheus } from './load.js'

export interface CollectOptions extends ObservationOptions {
  /** Where the metrics are registered. Default: prom-client's own `register`. */
  register?: Registry | undefined
  /** Also the metrics of the process: prom-client's `collectDefaultMetrics()`. Default false. They stay after the disposal. */
  processMetrics?: boolean | undefined
}

/** The metrics of this process, until it is disposed of. */
export interface PrometheusMetrics extends Disposable {
  readonly register: Registry
  /** A device that was made before the collection began; others are found. Idempotent. */
  observeDevice(device: ObservedDevice): void
}

/**
 * Counts what happens in this process, from now on, in metrics of prom-client: clients (`upcall_*`), handshakes and connects
 * (`vsock_handshake_*`) and vhost-user devices (`vsock_device_*`). The README lists them.
 *
 * Several collections may run at once, each in a registry of its own. The disposal takes the metrics out of the registry.
 *
 * @throws MetricsError `PEER_MISSING` without prom-client, `ALREADY_COLLECTED` if the registry has these metrics already.
 */
export async function collectMetrics(options: CollectOptions = {}): Promise<PrometheusMetrics> {
  checkObject('options', options)
  const prometheus = await loadPrometheus('collectMetrics')
  const { register = prometheus.register, processMetrics = false, ...observed } = options
  for (const key of METRIC_KEYS) if (register.getSingleMetric(CATALOG[key].name)) throw alreadyThere(CATALOG[key].name)
  if (processMetrics && !register.getSingleMetric(PROCESS_METRIC)) prometheus.collectDefaultMetrics({ register })
  return new Collection(prometheus, register, observed)
}

/** One of prom-client's own: where it is, all are. */
const PROCESS_METRIC = 'process_cpu_seconds_total'

class Collection implements PrometheusMetrics {
  readonly register: Registry
  readonly #counters = new Map<CountedKey, Counter>()
  readonly #observation: Observation
  #disposed = false

  constructor(prometheus: Prometheus, register: Registry, options: ObservationOptions) {
    this.register = register
    let duration: Histogram | undefined
    this.#observation = new Observation(
      {
        count: (key, labels, more) => this.#counters.get(key)?.inc(labels, more),
        took: (op, seconds) => duration?.observe({ op }, seconds),
      },
      options,
    )
    for (const key of METRIC_KEYS) {
      const { name, help, kind, how } = CATALOG[key]
      const about = { name, help, labelNames: labelsOf(key, options), registers: [register] }
      if (kind === 'histogram') duration = new prometheus.Histogram({ ...about, buckets: [...DURATION_BUCKETS] })
      else if (how === 'counted') this.#counters.set(key as CountedKey, new prometheus.Counter(about))
      else this.#read(kind === 'counter' ? prometheus.Counter : prometheus.Gauge, key as ReadKey, about)
    }
  }

  observeDevice(device: ObservedDevice): void {
    this.#observation.observeDevice(device)
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#observation[Symbol.dispose]()
    for (const key of METRIC_KEYS) this.register.removeSingleMetric(CATALOG[key].name)
  }

  /** A metric whose values are made when the registry is asked. */
  #read(
    Kind: Prometheus['Counter'] | Prometheus['Gauge'],
    key: ReadKey,
    about: { name: string; help: string; labelNames: readonly string[]; registers: Registry[] },
  ): void {
    const observation = this.#observation
    new Kind({
      ...about,
      collect() {
        // What is no longer there would stay.
        this.reset()
        for (const { labels, value } of observation.read(key)) (this as Summed).inc(labels, value)
      },
    }) satisfies Metric
  }
}

/** What counters and gauges have in common. */
interface Summed {
  inc(labels: Labels, value: number): void
}

const alreadyThere = (name: MetricKey | string): MetricsError =>
  new MetricsError({
    code: 'ALREADY_COLLECTED',
    op: 'collectMetrics',
    subject: name,
    what: 'the registry has a metric of this name already',
    next: 'Dispose of the other collection first, or pass a register of your own.',
  })
