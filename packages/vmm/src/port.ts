import type { Bdf } from '@upcall/device-manager'
import type { Drive, PciDevice } from './devices.js'
import type { Window } from './mmio-space.js'

/** A block device as the guest has it. `size` in bytes; `serial` is null where the device has none. */
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
  /** All its block devices, whatever they are plugged into, if it says so. */
  readonly blocks?: readonly BlockDevice[] | undefined
}

/** What is plugged in and not in use: the guest has let go of it, and has not ejected it. */
export interface Spares {
  readonly cpus: readonly number[]
  readonly pci: readonly Bdf[]
}

/**
 * The hardware under the guest: a port, which you implement for your VMM. `machineCompliance` of `@upcall/testkit/vmm` tests yours.
 *
 * - A machine sends no upcall. `Vm` asks the guest, before or after it calls the machine.
 * - Starting and plugging resolve once the guest would find the change, so that an upcall sent next does not come too early. If they
 *   reject, nothing was changed.
 * - Stopping and unplugging do not reject, whether or not the thing is there. What does not come out is a spare, and is used again when
 *   it is asked for.
 * - Memory is the machine's alone: there is no upcall for it.
 */
export interface Machine {
  /** `paused`: its vCPUs are stopped. `dead`: there is no guest. */
  readonly guest: 'booting' | 'booted' | 'paused' | 'dead'
  /** Aborts when this guest is gone: dead, or reset. The next guest has another signal. */
  readonly guestGone: AbortSignal
  /** Bytes that are plugged in. */
  readonly memory: number
  readonly spares: Spares
  /** How often a guest was reset or booted again on the same hardware, and has forgotten what it was told. */
  readonly resets: number
  /** Starts vCPUs, for the guest to bring online. */
  startCpus(ids: readonly number[]): Promise<void>
  /** Stops vCPUs that the guest has taken offline, or has never brought online. */
  stopCpus(ids: readonly number[]): Promise<void>
  /** @throws VmError `INVALID` unless the machine can have so many bytes. */
  checkMemory(bytes: number): void
  /** Whether the machine has so many bytes, and was asked for no others since. */
  hasMemory(bytes: number): boolean
  /** Resolves when the guest has taken or given all of it. @throws VmError `UNFINISHED` if the guest was asked and has not done it in time. */
  resizeMemory(bytes: number): Promise<void>
  /** A window for one more drive, which overlaps none of `taken`; undefined if none is free. @throws VmError `INVALID` if this machine has no windows. */
  chooseWindow(taken: readonly Window[]): Window | undefined
  attachDrive(drive: Drive): Promise<void>
  detachDrive(drive: Drive): Promise<void>
  /** The place of that address, or without one a place that is free; undefined if none is. @throws VmError `INVALID` if this machine has no such place. */
  choosePlace(taken: readonly Bdf[], bdf: string | undefined): Bdf | undefined
  plugPci(device: PciDevice): Promise<void>
  unplugPci(device: PciDevice): Promise<void>
  /** undefined if the guest cannot tell. */
  report(): Promise<GuestReport | undefined>
  /** Boots another guest after the last one died. It finds the hardware that is there now, as its firmware tables and command line list it. */
  boot(): void
}
