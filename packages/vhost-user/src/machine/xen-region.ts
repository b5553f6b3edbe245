import { type DeviceError, guestError, hex } from './errors.js'
import type { MemoryRegion } from './memory.js'

/**
 * A region of a front end that has negotiated XEN_MMAP (QEMU, docs/interop/vhost-user.rst; rust-vmm, `VhostUserMemoryRegion` with the
 * feature `xen`): the four fields of every region, then u32 flags and u32 domain.
 *
 * The addresses are not numbers: those of granted pages have bit 63 set.
 */
export interface XenRegion {
  readonly guestAddress: bigint
  readonly size: bigint
  readonly userAddress: bigint
  readonly fileOffset: bigint
  /** 0: ordinary memory, mapped from the descriptor. Otherwise `XEN_FOREIGN` or `XEN_GRANT`, perhaps with `XEN_ON_DEMAND`. */
  readonly flags: number
  /** The domain whose memory it is. */
  readonly domain: number
}

export const XEN_REGION_SIZE = 40
/** Memory of another domain by its frame numbers: the descriptor is /dev/xen/privcmd. */
export const XEN_FOREIGN = 0x1
/** Pages that the other domain has granted: the descriptor is /dev/xen/gntdev. */
export const XEN_GRANT = 0x2
/** The specification's bit for granted memory that cannot be mapped in advance, only where it is needed. */
export const XEN_ON_DEMAND = 0x100
/** rust-vmm's value for the same. Front ends of both kinds exist. */
export const XEN_ON_DEMAND_RUST_VMM = 0x8
const KNOWN = XEN_FOREIGN | XEN_GRANT | XEN_ON_DEMAND | XEN_ON_DEMAND_RUST_VMM

export const isXenRegion = (region: MemoryRegion | XenRegion): region is XenRegion => 'domain' in region

/** Whether the region's pages may only be mapped where they are needed, and only for as long. */
export const isOnDemand = ({ flags }: XenRegion): boolean => (flags & (XEN_ON_DEMAND | XEN_ON_DEMAND_RUST_VMM)) !== 0

export const decodeXenRegion = (view: DataView, at: number): XenRegion => ({
  guestAddress: view.getBigUint64(at, true),
  size: view.getBigUint64(at + 8, true),
  userAddress: view.getBigUint64(at + 16, true),
  fileOffset: view.getBigUint64(at + 24, true),
  flags: view.getUint32(at + 32, true),
  domain: view.getUint32(at + 36, true),
})

/**
 * A region whose flags are 0 as an ordinary region; undefined for memory of another domain. Refuses (`MEMORY_TABLE`) flags that are
 * unknown or contradict each other.
 */
export function asOrdinary(region: XenRegion): MemoryRegion | undefined {
  const { flags } = region
  const both = XEN_FOREIGN | XEN_GRANT
  if ((flags & ~KNOWN) !== 0 || (flags & both) === both || (isOnDemand(region) && (flags & XEN_GRANT) === 0)) {
    throw xenError(region, `its flags ${hex(flags)} are unknown, or contradict each other`)
  }
  return flags === 0 ? numbered(region) : undefined
}

/** The region with numbers for addresses. Those beyond 2^53 are rounded: no table takes them. */
export const numbered = ({ guestAddress, size, userAddress, fileOffset }: MemoryRegion | XenRegion): MemoryRegion => ({
  guestAddress: Number(guestAddress),
  size: Number(size),
  userAddress: Number(userAddress),
  fileOffset: Number(fileOffset),
})

/** The region cannot be had. */
export const xenError = ({ guestAddress, domain }: XenRegion, what: string): DeviceError =>
  guestError('MEMORY_TABLE', `memory region at ${hex(guestAddress)} of Xen domain ${domain}`, what)
