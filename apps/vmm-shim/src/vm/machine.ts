import type { Bdf } from '@upcall/device-manager'
import type { Drive } from './books.js'
import type { Window } from './mmio-space.js'

/** What the guest itself says it has. */
export interface GuestReport {
  readonly booted: boolean
  readonly paused: boolean
  /** A thread of its device manager is dead: some requests will never be answered. */
  readonly crashed: boolean
  /** `online` run; `present` are plugged in as far as the guest knows. Ids, ascending. */
  readonly cpus: { readonly online: readonly number[]; readonly present: readonly number[] }
  readonly mmio: readonly Window[]
  readonly pci: readonly Bdf[]
}

/**
 * The hardware under the guest. Nothing here asks the guest for anything. Starting and plugging resolve once the guest would find the
 * change, so that an upcall sent next does not come too early, and change nothing if they reject. Stopping and unplugging never reject.
 */
export interface Machine {
  /** `dead`: there is no guest any more. */
  readonly guest: 'booting' | 'booted' | 'dead'
  /** Aborts when this guest is gone. */
  readonly guestGone: AbortSignal
  startCpus(ids: readonly number[]): Promise<void>
  stopCpus(ids: readonly number[]): Promise<void>
  attachDrive(drive: Drive): Promise<void>
  detachDrive(drive: Drive): Promise<void>
  plugPci(place: Bdf): Promise<void>
  unplugPci(place: Bdf): Promise<void>
  /** undefined if the guest cannot tell. */
  report(): Promise<GuestReport | undefined>
  /** Boots another guest after the last one died. It finds the hardware that is there now, as its firmware tables and command line list it. */
  boot(): void
}
