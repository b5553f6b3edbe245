import type { Bdf } from '@upcall/device-manager'
import type { Window } from './mmio-space.js'

/**
 * `adding`, `removing`: a change is under way. `unknown`: the guest was asked and did not answer; the device keeps its place until a
 * reconcile settles it.
 */
export type DeviceStatus = 'adding' | 'present' | 'removing' | 'unknown'

export interface Cpu {
  /** The APIC id on x86_64; a number from 0 up on aarch64. */
  readonly id: number
  status: DeviceStatus
}

/** A file of the host that a block device reads and writes. */
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
  /** Without a disk it is some device without a file. */
  readonly disk?: Disk | undefined
  status: DeviceStatus
}
