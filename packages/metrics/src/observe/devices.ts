import type { DeviceCounters, DeviceState, VhostUserVsock } from '@upcall/vhost-user'
import type { Labels, ReadKey, Sample } from '../catalog.js'

/** What is read of a device. */
export type ObservedDevice = Pick<VhostUserVsock, 'guestCid' | 'state' | 'connections' | 'counters'>

export type DeviceKey = Exclude<ReadKey, 'state'>

interface Entry {
  readonly device: WeakRef<ObservedDevice>
  readonly cid: string
  /** As last read: what a device has counted stays counted when it is gone. */
  last: DeviceCounters
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

const READS: Readonly<Record<Exclude<DeviceKey, 'connections' | 'deviceState'>, Read>> = {
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

/**
 * The devices of this process. Their counters are read when it is asked for: a packet costs nothing more. A sum never falls: what a device
 * that is gone has counted stays in it. For each guest there are numbers for as long as it has a device.
 */
export class Devices {
  readonly #perGuest: boolean
  readonly #known = new WeakSet<ObservedDevice>()
  readonly #entries = new Set<Entry>()
  /** Sums of the devices that are gone, by metric and labels. */
  readonly #gone = new Map<string, number>()

  constructor(perGuest: boolean) {
    this.#perGuest = perGuest
  }

  see(device: ObservedDevice): void {
    if (this.#known.has(device)) return
    this.#known.add(device)
    this.#entries.add({ device: new WeakRef(device), cid: String(device.guestCid), last: device.counters })
  }

  samples(key: DeviceKey): Sample[] {
    this.#refresh()
    if (key === 'connections') return this.#sum([[{}, 0]], (_, device) => [[{}, device?.connections ?? 0]])
    if (key === 'deviceState')
      return this.#sum(states(undefined), (_, device) => (device === undefined ? [] : states(device.state)))
    const read = READS[key]
    const base = read(NOTHING).map(([labels]) => [labels, this.#gone.get(nameOf(key, labels)) ?? 0] as const)
    return this.#sum(base, ({ last }) => read(last))
  }

  /** Takes the newest numbers. Those of devices that are gone are kept as sums. */
  #refresh(): void {
    for (const entry of this.#entries) {
      const device = entry.device.deref()
      if (device !== undefined) entry.last = device.counters
      if (device !== undefined && device.state !== 'closed') continue
      this.#entries.delete(entry)
      for (const key of Object.keys(READS) as (keyof typeof READS)[])
        for (const [labels, value] of READS[key](entry.last)) {
          const name = nameOf(key, labels)
          this.#gone.set(name, (this.#gone.get(name) ?? 0) + value)
        }
    }
  }

  /** @param base - What there is without any device. */
  #sum(
    base: readonly (readonly [Labels, number])[],
    read: (entry: Entry, device: ObservedDevice | undefined) => readonly (readonly [Labels, number])[],
  ): Sample[] {
    const sums = new Map<string, { labels: Labels; value: number }>()
    const add = (labels: Labels, value: number) => {
      const name = JSON.stringify(labels)
      const sum = sums.get(name)
      if (sum === undefined) sums.set(name, { labels, value })
      else sum.value += value
    }
    if (!this.#perGuest) for (const [labels, value] of base) add(labels, value)
    for (const entry of this.#entries)
      for (const [labels, value] of read(entry, entry.device.deref()))
        add(this.#perGuest ? { ...labels, cid: entry.cid } : labels, value)
    return [...sums.values()]
  }
}

const states = (current: DeviceState | undefined) =>
  STATES.map((state) => [{ state }, state === current ? 1 : 0] as const satisfies readonly [Labels, number])

const nameOf = (key: string, labels: Labels): string => `${key} ${JSON.stringify(labels)}`

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
