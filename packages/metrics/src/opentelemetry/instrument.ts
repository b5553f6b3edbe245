import type { Meter, Tracer } from '@opentelemetry/api'
import { checkObject } from '@upcall/foundation/check'
import { peer } from '../errors.js'
import type { ObservedDevice } from '../observe/devices.js'
import type { ObservationOptions } from '../observe/observation.js'
import { Meters } from './meters.js'
import { Spans } from './spans.js'

export interface InstrumentOptions extends ObservationOptions {
  /** What makes the spans; null: there are none. Default: `trace.getTracer('@upcall/metrics')`, of the SDK that is registered. */
  tracer?: Tracer | null | undefined
  /** What makes the instruments; null: there are none. Default: `metrics.getMeter('@upcall/metrics')`, of the SDK that is registered. */
  meter?: Meter | null | undefined
}

/** The spans and metrics of this process, until it is disposed of. */
export interface Telemetry extends Disposable {
  /** A device that was made before; others are found. Idempotent. */
  observeDevice(device: ObservedDevice): void
}

/**
 * Makes a span for each request and for each attempt to reach a guest, and counts what happens in this process, from now on. The metrics
 * have the names and attributes of those for Prometheus. Register the SDK before.
 *
 * @throws MetricsError `PEER_MISSING` without @opentelemetry/api.
 */
export async function instrument(options: InstrumentOptions = {}): Promise<Telemetry> {
  checkObject('options', options)
  const api = await peer('instrument', '@opentelemetry/api', () => import('@opentelemetry/api'))
  const { tracer = api.trace.getTracer(NAME), meter = api.metrics.getMeter(NAME), now, ...detail } = options
  const meters = meter === null ? undefined : new Meters(meter, { ...detail, now })
  const spans = tracer === null ? undefined : new Spans(api, tracer, now)
  return {
    observeDevice: (device) => meters?.observeDevice(device),
    [Symbol.dispose]() {
      meters?.[Symbol.dispose]()
      spans?.[Symbol.dispose]()
    },
  }
}

const NAME = '@upcall/metrics'
