import type { DeviceCounters, DeviceState, VhostUserVsock } from '@upcall/vhost-user'
import type { Labels, ReadKey, Sample } from '../catalog.js'

/** What is read of a device. */
export type ObservedDevice = Pick<VhostUserVsock, 'guestCid' | 'state' | 'connections' | 'counters'>

export type DeviceKey = Exclude<ReadKey, 'state'>

/** What a device has no counter for: it is heard as it happens. */
export type HeardKey = 'refusals' | 'recoveries'

interface Entry {
  readonly device: WeakRef<ObservedDevice>
  readonly cid: string
  /** As last read: what a device has counted stays counted when it is gone. */
  last: DeviceCounters
  readonly heard: Sums
}

const STATES: readonly DeviceState[] = ['waiting', 'attached', 'running', 'faulted']

type Read = (counters: DeviceCounters) => readonly (readonly [Labels, number])[]

const both = (read: (way: 'fromGuest' | 'toGuest', counters: DeviceCounters) => number): Read => {
  return (counters) => [
    [{ direction: 'from-guest' }, read('fromGuest', counters)],
    [{ direction: 'to-guest' }, read('toGuest', counters)],
  ]
}
const one = (read: (counters: DeviceCounters) => number): Read => {
  return (counters) => [[{}, read(counters)]]
}

const READS: Readonly<Record<Exclude<DeviceKey, HeardKey | 'connections' | 'deviceState'>, Read>> = {
  packets: both((way, counters) => counters[way].packets),
  bytes: both((way, counters) => counters[way].bytes),
  begun: both((way, counters) => counters.connections[way]),
  stalls: one(({ creditStalls }) => creditStalls),
  interrupts: ({ interrupts }) => [
    [{ ring: 'rx' }, interrupts.rx],
    [{ ring: 'tx' }, interrupts.tx],
  ],
  kicks: one(({ kicks }) => kicks),
  dropped: one(({ dropped }) => dropped),
}

/** Sums by metric and labels. */
class Sums {
  readonly #values = new Map<DeviceKey, Map<string, Sample>>()

  add(key: DeviceKey, labels: Labels, more: number): void {
    const values = this.#values.get(key) ?? new Map<string, Sample>()
    const name = JSON.stringify(labels)
    this.#values.set(key, values.set(name, { labels, value: (values.get(name)?.value ?? 0) + more }))
  }

  addAll(key: DeviceKey, samples: readonly (readonly [Labels, number])[]): void {
    for (const [labels, value] of samples) this.add(key, labels, value)
  }

  of(key: DeviceKey): (readonly [Labels, number])[] {
    return this.samples(key).map(({ labels, value }) => [labels, value])
  }

  samples(key: DeviceKey): Sample[] {
    return [...(this.#values.get(key)?.values() ?? [])]
  }
}

/**
 * The devices of this process. Their counters are read when it is asked for: a packet costs nothing more. A sum never falls: what a device
 * that is gone has counted stays in it. For each guest there are numbers for as long as it has a device.
 */
export class Devices {
  readonly #perGuest: boolean
  /** Also those that are closed: what is still to be heard of one does not bring it back. */
  readonly #known = new WeakMap<ObservedDevice, Entry>()
  readonly #open = new Set<Entry>()
  /** Of the devices that are gone. */
  readonly #gone = new Sums()

  constructor(perGuest: boolean) {
    this.#perGuest = perGuest
  }

  see(device: ObservedDevice): void {
    this.#entryOf(device)
    // It may be collected as garbage before the next read.
    if (device.state === 'closed') this.#refresh()
  }

  /** One more of what the device told. */
  hear(device: ObservedDevice, key: HeardKey, labels: Labels): void {
    const entry = this.#entryOf(device)
    const { heard } = this.#open.has(entry) ? entry : { heard: this.#gone }
    heard.add(key, labels, 1)
  }

  samples(key: DeviceKey): Sample[] {
    this.#refresh()
    const sums = new Sums()
    if (!this.#perGuest) sums.addAll(key, [...least(key), ...this.#gone.of(key)])
    for (const entry of this.#open)
      for (const [labels, value] of valuesOf(key, entry))
        sums.add(key, this.#perGuest ? { ...labels, cid: entry.cid } : labels, value)
    return sums.samples(key)
  }

  #entryOf(device: ObservedDevice): Entry {
    let entry = this.#known.get(device)
    if (entry === undefined) {
      entry = { device: new WeakRef(device), cid: String(device.guestCid), last: device.counters, heard: new Sums() }
      this.#known.set(device, entry)
      this.#open.add(entry)
    }
    return entry
  }

  /** Takes the newest numbers. Those of devices that are gone are kept as sums. */
  #refresh(): void {
    for (const entry of this.#open) {
      const device = entry.device.deref()
      if (device !== undefined) entry.last = device.counters
      if (device !== undefined && device.state !== 'closed') continue
      this.#open.delete(entry)
      for (const key of KEPT) this.#gone.addAll(key, valuesOf(key, entry))
    }
  }
}

/** What there is without any device. */
function least(key: DeviceKey): readonly (readonly [Labels, number])[] {
  if (key === 'connections') return [[{}, 0]]
  if (key === 'deviceState') return states(undefined)
  return isHeard(key) ? [] : READS[key](NOTHING)
}

function valuesOf(key: DeviceKey, { device, last, heard }: Entry): readonly (readonly [Labels, number])[] {
  if (key === 'connections') return [[{}, device.deref()?.connections ?? 0]]
  if (key === 'deviceState') return states(device.deref()?.state)
  return isHeard(key) ? heard.of(key) : READS[key](last)
}

const isHeard = (key: DeviceKey): key is HeardKey => key === 'refusals' || key === 'recoveries'

const KEPT: readonly DeviceKey[] = [...(Object.keys(READS) as (keyof typeof READS)[]), 'refusals', 'recoveries']

const states = (current: DeviceState | undefined) =>
  STATES.map((state) => [{ state }, state === current ? 1 : 0] as const satisfies readonly [Labels, number])

const ZERO = { packets: 0, bytes: 0 }
const NOTHING: DeviceCounters = {
  fromGuest: ZERO,
  toGuest: ZERO,
  connections: { fromGuest: 0, toGuest: 0 },
  interrupts: { rx: 0, tx: 0 },
  dropped: 0,
  creditStalls: 0,
  kicks: 0,
}
