import type { Bdf } from '@upcall/device-manager'
import type { Window } from './mmio-space.js'

/** `unknown`: a request about it was sent and never answered. It keeps its place until a reconcile settles it. */
export type DeviceStatus = 'adding' | 'present' | 'removing' | 'unknown'

/** A file of the host behind a block device. */
export interface Disk {
  readonly pathOnHost: string
  readonly isReadOnly: boolean
}

/** A virtio-mmio block device. */
export interface Drive extends Disk {
  readonly id: string
  readonly window: Window
  status: DeviceStatus
}

export interface PciDevice {
  readonly id: string
  readonly place: Bdf
  /** Without one it is some device, with nothing behind it. */
  readonly disk?: Disk | undefined
  status: DeviceStatus
}

/** What the VMM believes of its own machine. */
export interface Books {
  /** Ids, ascending. Those in `unknown` run, but nobody knows whether the guest uses them. */
  cpus: { present: readonly number[]; unknown: readonly number[] }
  readonly drives: Map<string, Drive>
  readonly pci: Map<string, PciDevice>
}
