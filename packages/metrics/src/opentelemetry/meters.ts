import type { Counter, Histogram, Meter, Observable, ObservableCallback } from '@opentelemetry/api'
import { CATALOG, type CountedKey, DURATION_BUCKETS, METRIC_KEYS, type ReadKey } from '../catalog.js'
import type { ObservedDevice } from '../observe/devices.js'
import { Observation, type ObservationOptions } from '../observe/observation.js'

/** The catalogue as instruments of a meter. */
export class Meters implements Disposable {
  readonly #counters = new Map<CountedKey, Counter>()
  readonly #observation: Observation
  readonly #observed: (readonly [Observable, ObservableCallback])[] = []

  constructor(meter: Meter, options: ObservationOptions) {
    let duration: Histogram | undefined
    this.#observation = new Observation(
      {
        count: (key, labels, more) => this.#counters.get(key)?.add(more, labels),
        took: (op, seconds) => duration?.record(seconds, { op }),
      },
      options,
    )
    for (const key of METRIC_KEYS) {
      const { name, help: description, kind, how } = CATALOG[key]
      if (kind === 'histogram') {
        const advice = { explicitBucketBoundaries: [...DURATION_BUCKETS] }
        duration = meter.createHistogram(name, { description, unit: 's', advice })
      } else if (how === 'counted') {
        this.#counters.set(key as CountedKey, meter.createCounter(name, { description }))
      } else {
        const unit = key === 'bytes' ? 'By' : ''
        const options = { description, unit }
        this.#observe(
          kind === 'counter' ? meter.createObservableCounter(name, options) : meter.createObservableUpDownCounter(name, options),
          key as ReadKey,
        )
      }
    }
  }

  observeDevice(device: ObservedDevice): void {
    this.#observation.observeDevice(device)
  }

  [Symbol.dispose](): void {
    this.#observation[Symbol.dispose]()
    for (const [instrument, callback] of this.#observed.splice(0)) instrument.removeCallback(callback)
  }

  #observe(instrument: Observable, key: ReadKey): void {
    const callback: ObservableCallback = (result) => {
      for (const { labels, value } of this.#observation.read(key)) result.observe(value, labels)
    }
    instrument.addCallback(callback)
    this.#observed.push([instrument, callback])
  }
}
