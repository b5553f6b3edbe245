/**
 * The guest's side of the device manager: service `'d'` for an `UpcallServer`, and what to put behind it: the Linux it runs in, or a
 * guest in memory.
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
} from './backend.js'
export { type LinuxGuestOptions, linuxGuest } from './linux/guest.js'
export { type OnlinedMemory, type OnlineMemoryOptions, onlineMemory } from './linux/memory.js'
export type { Quirks, WireQuirks } from './quirks.js'
export { type DeviceManagerGuestOptions, deviceManagerGuest } from './service.js'
export {
  type KernelVersion,
  type SimulatedGuest,
  type SimulatedGuestOptions,
  type SimulatedGuestState,
  simulatedGuest,
} from './simulated/guest.js'
export type { SimulatedHardware } from './simulated/hardware.js'
export type { MmioWindow } from './simulated/mmio.js'
export type { PciFunction } from './simulated/pci.js'
