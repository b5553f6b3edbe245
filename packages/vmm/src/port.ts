import type { Bdf } from '@upcall/device-manager'
import type { Drive, PciDevice } from './devices.js'
import type { Window } from './mmio-space.js'

/** A block device as the guest has it. `size` in bytes; `serial` is null where the device tells none. */
export interface BlockDevice {
  readonly name: string
  readonly serial: string | null
  readonly size: number
}

/** What the guest itself says it has. */
export interface GuestReport {
  readonly booted: boolean
  readonly paused: boolean
  /** A thread of its device manager is dead: some requests will never be answered. */
  readonly crashed: boolean
  /** `online` run; `present` are plugged in as far as the guest knows, if it says so. Ids, ascending. */
  readonly cpus: { readonly online: readonly number[]; readonly present?: readonly number[] | undefined }
  readonly mmio: readonly Window[]
  readonly pci: readonly Bdf[]
  /** Bytes in use, if it says so. */
  readonly memory?: number | undefined
  /** All it has, whatever they are plugged into; if it says so. */
  readonly blocks?: readonly BlockDevice[] | undefined
}

/** Plugged in although the books do not have them: the guest let go of them, and has not ejected them. */
export interface Spares {
  readonly cpus: readonly number[]
  readonly pci: readonly Bdf[]
}

/**
 * The hardware under the guest. Nothing here sends an upcall. Starting and plugging resolve once the guest would find the change, so that
 * an upcall sent next does not come too early, and change nothing if they reject. Stopping and unplugging never reject: what does not
 * come out is a spare, and is used again when it is asked for.
 */
export interface Machine {
  /** `paused`: its vCPUs are stopped. `dead`: there is no guest any more. */
  readonly guest: 'booting' | 'booted' | 'paused' | 'dead'
  /** Aborts when this guest is gone, dead or started afresh. */
  readonly guestGone: AbortSignal
  /** Bytes that are plugged in. */
  readonly memory: number
  readonly spares: Spares
  /** How often a guest has started afresh on the same hardware, and forgotten what it was told. */
  readonly resets: number
  startCpus(ids: readonly number[]): Promise<void>
  stopCpus(ids: readonly number[]): Promise<void>
  /** @throws VmError `INVALID` unless it can have so many bytes. */
  checkMemory(bytes: number): void
  /** Whether it has so many bytes, and was asked for no others since. */
  hasMemory(bytes: number): boolean
  /** Resolves when the guest has taken or given all of it. @throws VmError `UNFINISHED` if it has been asked, and is not through. */
  resizeMemory(bytes: number): Promise<void>
  /** A window for one more drive, or undefined if none is left. @throws VmError `INVALID` for a machine that has no windows at all. */
  chooseWindow(taken: readonly Window[]): Window | undefined
  attachDrive(drive: Drive): Promise<void>
  detachDrive(drive: Drive): Promise<void>
  /** The place of that address, or without one a free place, if there is any. @throws VmError `INVALID` for an address that it has not. */
  choosePlace(taken: readonly Bdf[], bdf: string | undefined): Bdf | undefined
  plugPci(device: PciDevice): Promise<void>
  unplugPci(device: PciDevice): Promise<void>
  /** undefined if the guest cannot tell. */
  report(): Promise<GuestReport | undefined>
  /** Boots another guest after the last one died. It finds the hardware that is there now, as its firmware tables and command line list it. */
  boot(): void
}
