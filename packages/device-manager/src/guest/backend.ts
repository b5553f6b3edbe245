import type { GuestConnection } from '@upcall/server'
import type { Arch, CpuRequest, MmioRequest, PciRequest } from '@upcall/wire'
import type { WireQuirks } from './quirks.js'

/** A value now or later. A session answers in the same turn where it can. */
export type MaybePromise<T> = T | Promise<T>

/** What became of a CPU request. */
export interface CpuAnswer {
  /** 0, a negative errno, or +1: already in that state. */
  result: number
  /** x86_64: the number of CPUs acted on. aarch64: the number of CPUs online afterwards. A reply declares it only if `result` is 0. */
  index?: number | undefined
}

/** No reply will ever come: the guest's thread that served the connection is dead, or waits for a lock that nobody will release. */
export const NO_REPLY = Symbol('no reply')
export type NoReply = typeof NO_REPLY

export interface CpuHotplug {
  add(request: CpuRequest, connection: GuestConnection): MaybePromise<CpuAnswer | NoReply>
  remove(request: CpuRequest, connection: GuestConnection): MaybePromise<CpuAnswer | NoReply>
}

/** Results are 0 or a negative errno. */
export interface MmioHotplug {
  add(window: MmioRequest, connection: GuestConnection): MaybePromise<number | NoReply>
  remove(window: MmioRequest, connection: GuestConnection): MaybePromise<number | NoReply>
}

/** Results are 0 or a negative errno. */
export interface PciHotplug {
  add(slot: PciRequest, connection: GuestConnection): MaybePromise<number | NoReply>
  remove(slot: PciRequest, connection: GuestConnection): MaybePromise<number | NoReply>
}

/**
 * The guest behind the device manager: what is done when a request has been read. The wire, with its buffers and its framing, is
 * the session's part. CPU, MMIO and PCI hotplug are kernel options of their own; one that is absent answers −1 to its types.
 *
 * An operation that throws or rejects ends its connection.
 */
export interface GuestBackend {
  readonly arch: Arch
  readonly cpu?: CpuHotplug | undefined
  readonly mmio?: MmioHotplug | undefined
  readonly pci?: PciHotplug | undefined
  /** How the guest's wire side misbehaves. Default: not at all. */
  readonly quirks?: Partial<WireQuirks> | undefined
  /** False while the device manager is not registered yet. Default: always true. */
  available?(now: number): boolean
  /** A client has chosen the device manager. */
  opened?(connection: GuestConnection): void
  /** Resolves once the guest runs again; undefined while it runs. Nothing is done and nothing is answered before. Default: it runs. */
  stopped?(): Promise<void> | undefined
}
