import type { Bdf } from '@upcall/device-manager'
import type { KernelVersion } from '@upcall/device-manager/guest'
import type { Arch } from '@upcall/wire'
import type { Window } from '../mmio-space.js'
import type { GuestReport } from '../port.js'
import type { Fault } from './faults.js'

/** vCPUs that run and PCI functions that are plugged in; `'all'` answers for every CPU that fits and all of bus 0. */
export type Hardware = 'all' | { readonly cpus: readonly number[]; readonly pci: readonly Bdf[] }

/** What a guest boots with. */
export interface GuestConfig {
  readonly arch: Arch
  readonly kernel: KernelVersion
  /** Path of the Unix socket that stands for the guest's vsock port. */
  readonly socket: string
  readonly cpus: number
  readonly maxCpus: number
  /** How long the boot takes, in milliseconds. In the first half there is no listener, in the second the service is not registered. */
  readonly bootMs: number
  readonly hardware: Hardware
  /** Windows that the kernel's command line names. */
  readonly mmio: readonly Window[]
  readonly pci: readonly Bdf[]
  readonly fault: Fault | undefined
}

/** What the VMM's process tells the guest's, over the channel of the fork. Each is answered once it is done. */
export type Command =
  | { readonly type: 'start'; readonly config: GuestConfig }
  /** All there is now. */
  | { readonly type: 'hardware'; readonly hardware: Hardware }
  | { readonly type: 'report' }
  /** Stops all vCPUs, or lets them run on. */
  | { readonly type: 'pause'; readonly paused: boolean }
  | { readonly type: 'fault'; readonly fault: Fault | undefined }

export interface CommandMessage {
  readonly id: number
  readonly command: Command
}

/** What the guest's process tells the VMM's. */
export type GuestMessage =
  | { readonly type: 'done'; readonly id: number; readonly report?: GuestReport | undefined }
  | { readonly type: 'booted' }
