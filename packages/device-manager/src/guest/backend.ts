import type { GuestConnection } from '@upcall/server'
import type { Arch, CpuRequest, MmioRequest, PciRequest } from '@upcall/wire'
import type { WireQuirks } from './quirks.js'

/** A value now or later. A session answers in the same turn if it can. */
export type MaybePromise<T> = T | Promise<T>

/** The answer to a CPU request. */
export interface CpuAnswer {
  /** 0, a negative errno, or +1: already in that state. */
  result: number
  /** x86_64: the number of CPUs in the request. aarch64: the number of CPUs online afterwards. A reply declares it only if `result` is 0. */
  index?: number | undefined
}

/** There will never be a reply: the guest's thread that served the connection has crashed, or waits for a lock that is never released. */
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
 * The guest of the device manager: it does what a request asks for. The session reads requests and writes replies. CPU, MMIO and PCI
 * hotplug are separate kernel options; requests for an absent one get −1.
 *
 * An operation that throws or rejects ends its connection.
 */
export interface GuestBackend {
  readonly arch: Arch
  readonly cpu?: CpuHotplug | undefined
  readonly mmio?: MmioHotplug | undefined
  readonly pci?: PciHotplug | undefined
  /** The oddities of the guest's wire side. Default: none. */
  readonly quirks?: Partial<WireQuirks> | undefined
  /** False while the device manager is not registered yet. Default: true. */
  available?(now: number): boolean
  /** A client has chosen the device manager. */
  opened?(connection: GuestConnection): void
  /** Resolves when the guest runs again; undefined while it runs. A paused guest does nothing and answers nothing. Default: it runs. */
  stopped?(): Promise<void> | undefined
}
