import { formatBdf } from '@upcall/device-manager'
import type { Drive, PciDevice } from './devices.js'
import { type Inventory, isUnknown, presentCpus, unknownCpus } from './inventory.js'
import { sameWindow } from './mmio-space.js'
import { sameFunction } from './pci-bus.js'
import type { GuestReport } from './port.js'

export interface Settled {
  readonly kind: 'cpu' | 'mmio' | 'pci'
  /** The vCPU's id or the device's. */
  readonly id: string
  readonly now: 'present' | 'absent'
}

/** What one side has and the other does not, although no request about it was left open. */
export interface Difference {
  readonly kind: 'cpu' | 'mmio' | 'pci'
  readonly id: string
  /** The side that has it. */
  readonly only: 'vmm' | 'guest'
}

/** What to make of everything unknown, given what the guest has. Pure. */
export interface Settlement {
  readonly cpus: { readonly present: number[]; readonly absent: number[] }
  readonly drives: { readonly present: Drive[]; readonly absent: Drive[] }
  readonly pci: { readonly present: PciDevice[]; readonly absent: PciDevice[] }
}

/** Holds only once the guest has ended what it was asked. */
export function settle(inventory: Inventory, guest: GuestReport): Settlement {
  const unknown = unknownCpus(inventory)
  const online = new Set(guest.cpus.online)
  const runs = (id: number) => online.has(id)
  const drives = [...inventory.drives.values()].filter(isUnknown)
  const pci = [...inventory.pci.values()].filter(isUnknown)
  const hasDrive = (drive: Drive) => guest.mmio.some((window) => sameWindow(window, drive.window))
  const hasPci = (device: PciDevice) => guest.pci.some((place) => sameFunction(place, device.place))
  return {
    cpus: { present: unknown.filter(runs), absent: unknown.filter((id) => !runs(id)) },
    drives: { present: drives.filter(hasDrive), absent: drives.filter((drive) => !hasDrive(drive)) },
    pci: { present: pci.filter(hasPci), absent: pci.filter((device) => !hasPci(device)) },
  }
}

/** A new guest has nothing but what it was booted with. */
export function settleAsAbsent(inventory: Inventory): Settlement {
  return {
    cpus: { present: [], absent: unknownCpus(inventory) },
    drives: { present: [], absent: [...inventory.drives.values()].filter(isUnknown) },
    pci: { present: [], absent: [...inventory.pci.values()].filter(isUnknown) },
  }
}

export function listSettled({ cpus, drives, pci }: Settlement): Settled[] {
  const settled = (kind: Settled['kind'], now: Settled['now'], ids: readonly (string | number)[]): Settled[] =>
    ids.map((id) => ({ kind, id: String(id), now }))
  const idOf = ({ id }: { id: string }) => id
  return [
    ...settled('cpu', 'present', cpus.present),
    ...settled('cpu', 'absent', cpus.absent),
    ...settled('mmio', 'present', drives.present.map(idOf)),
    ...settled('mmio', 'absent', drives.absent.map(idOf)),
    ...settled('pci', 'present', pci.present.map(idOf)),
    ...settled('pci', 'absent', pci.absent.map(idOf)),
  ]
}

/** Where the two sides differ although nothing is unknown, say because another client has asked the guest for something. */
export function differences(inventory: Inventory, guest: GuestReport): Difference[] {
  const drives = [...inventory.drives.values()]
  const pci = [...inventory.pci.values()]
  const present = presentCpus(inventory)
  const online = new Set(guest.cpus.online)
  return [
    ...present.filter((id) => !online.has(id)).map((id) => only('vmm', 'cpu', String(id))),
    ...guest.cpus.online.filter((id) => !inventory.cpus.has(id)).map((id) => only('guest', 'cpu', String(id))),
    ...drives
      .filter(({ status, window }) => status === 'present' && !guest.mmio.some((other) => sameWindow(other, window)))
      .map(({ id }) => only('vmm', 'mmio', id)),
    ...guest.mmio
      .filter((window) => !drives.some((drive) => sameWindow(drive.window, window)))
      .map(({ base }) => only('guest', 'mmio', `0x${base.toString(16)}`)),
    ...pci
      .filter(({ status, place }) => status === 'present' && !guest.pci.some((other) => sameFunction(other, place)))
      .map(({ id }) => only('vmm', 'pci', id)),
    ...guest.pci
      .filter((place) => !pci.some((device) => sameFunction(device.place, place)))
      .map((place) => only('guest', 'pci', formatBdf(place))),
  ]
}

function only(side: Difference['only'], kind: Difference['kind'], id: string): Difference {
  return { kind, id, only: side }
}
