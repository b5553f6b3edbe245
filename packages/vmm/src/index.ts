/**
 * The VMM's side of hotplug: a VM whose hardware and guest change together, in an order that survives a failure of either.
 *
 * @packageDocumentation
 */

export type { Resized } from './cpus.js'
export type { Cpu, DeviceStatus, Disk, Drive, PciDevice } from './devices.js'
export { isVmError, VmError, type VmErrorCode, type VmErrorFields } from './error.js'
export { bootInventory, type Inventory } from './inventory.js'
export { nextWindow, overlaps, sameWindow, WINDOW_SIZE, type Window } from './mmio-space.js'
export { nextFunction, parseAddress, readBdf, sameFunction } from './pci-bus.js'
export type { BlockDevice, GuestReport, Machine, Spares } from './port.js'
export type { Difference, Settled } from './reconcile.js'
export { type Reconciled, Reconciler, type ReconcilerOptions } from './reconciler.js'
export type { SavedStatus, VmSnapshot } from './snapshot.js'
export type { VmBelief, VmState, VmView } from './view.js'
export { type ChangeOptions, Vm, type VmOptions, type VmRestoreOptions } from './vm.js'
