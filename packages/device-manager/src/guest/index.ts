/**
 * The guest's side of the device manager: service `'d'` for an `UpcallServer`, and two back ends: the Linux that the program runs in, and a
 * guest in memory.
 *
 * @packageDocumentation
 */

export { isLinuxGuestError, LinuxGuestError, type LinuxGuestErrorCode } from './linux/error.js'
export { type LinuxGuestOptions, linuxGuest } from './linux/guest.js'
export { type OnlinedMemory, type OnlineMemoryOptions, onlineMemory } from './linux/memory.js'
export { type LinuxReport, linuxReport } from './linux/report.js'
export * from './simulated/index.js'
