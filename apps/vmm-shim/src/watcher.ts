import type { DeviceManager } from '@upcall/device-manager'
import type { Vm } from '@upcall/vmm'
import type { Arch } from '@upcall/wire'
import type { ChangeWatcher } from './api/changes.js'

/** Watches a shim from its beginning to its end, and may ask for changes. */
export interface ShimWatcher {
  readonly changes: ChangeWatcher
  /** Hears of the client before anything happens. */
  manages(manager: DeviceManager<Arch>): void
  /** The VM can be asked from now on. */
  serves(vm: Vm): void
  /** What the guest's console prints. */
  prints(text: string): void
  /** The VM must not be asked any more. Idempotent. */
  close(): Promise<void>
}
