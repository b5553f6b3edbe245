import type { Arch } from '@upcall/wire'
import type { Drive, PciDevice } from './devices.js'
import { type Inventory, presentCpus, unknownCpus } from './inventory.js'
import type { GuestReport, Machine, Spares } from './port.js'

/**
 * `booting`: the guest does not serve upcalls yet. `running`: it can be asked. `reconnecting`: it has booted, but there is no connection
 * to it at the moment. `paused`: its vCPUs are stopped. `dead`: there is no guest.
 */
export type VmState = 'booting' | 'running' | 'reconnecting' | 'paused' | 'dead'

/** What the VMM believes that the VM has. */
export interface VmBelief {
  /** Ids, ascending. Those in `unknown` run, and it is unknown whether the guest uses them. `max`: how many there can be. */
  readonly cpus: { readonly present: readonly number[]; readonly unknown: readonly number[]; readonly max: number }
  /** Bytes that are plugged in. */
  readonly memory: number
  readonly drives: readonly Readonly<Drive>[]
  readonly pci: readonly Readonly<PciDevice>[]
  readonly spares: Spares
}

/** What the VMM believes, beside what the guest says. */
export interface VmView {
  readonly state: VmState
  readonly arch: Arch
  readonly believed: VmBelief
  /** What the guest says it has; undefined if it cannot tell. */
  readonly guest: GuestReport | undefined
}

/** A copy, which later changes leave as it is. */
export function beliefOf(inventory: Inventory, { memory, spares }: Machine, max: number): VmBelief {
  return {
    cpus: { present: presentCpus(inventory), unknown: unknownCpus(inventory), max },
    memory,
    drives: [...inventory.drives.values()].map((drive) => ({ ...drive })),
    pci: [...inventory.pci.values()].map((device) => ({ ...device })),
    spares,
  }
}
