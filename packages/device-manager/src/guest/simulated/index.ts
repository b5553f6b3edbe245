/**
 * A guest in memory, and the device manager's service in front of it. Everything here is pure: it bundles for a browser, without any module
 * of Node.
 *
 * @packageDocumentation
 */

export {
  type CpuAnswer,
  type CpuHotplug,
  type GuestBackend,
  type MaybePromise,
  type MmioHotplug,
  NO_REPLY,
  type NoReply,
  type PciHotplug,
} from '../backend.js'
export type { Quirks, WireQuirks } from '../quirks.js'
export { type DeviceManagerGuestOptions, deviceManagerGuest } from '../service.js'
export {
  type KernelVersion,
  type SimulatedGuest,
  type SimulatedGuestOptions,
  type SimulatedGuestState,
  simulatedGuest,
} from './guest.js'
export type { SimulatedHardware } from './hardware.js'
export type { MmioWindow } from './mmio.js'
export type { PciFunction } from './pci.js'
