import type { Chain } from './chain.js'
import { type DeviceError, guestError, hex } from './errors.js'

/** One region of the memory table, as the front end describes it. Addresses and sizes in bytes. */
export interface MemoryRegion {
  /** Address in the guest's physical memory: what descriptors hold. */
  readonly guestAddress: number
  /** Address in the front end's own memory: what SET_VRING_ADDR holds. */
  readonly userAddress: number
  readonly size: number
  /** Where the region begins in its file. */
  readonly fileOffset: number
}

/** A region together with the views through which it is reached. */
export interface MappedRegion extends MemoryRegion {
  /** Window i covers the region from `i * windowStep`, for `windowStep + WINDOW_OVERLAP` bytes or to the region's end. */
  readonly windows: readonly Uint8Array[]
}

/** Distance between the starts of two windows. A view in Node 20 cannot be longer than 4 GiB, so a larger region has several. */
export const WINDOW_STEP = 2 ** 31
/** Windows overlap by more than the largest ring part (512 KiB), so that a ring always lies in one of them. */
export const WINDOW_OVERLAP = 2 ** 20

/** How long window `index` of a region of `size` bytes is. */
export const windowLength = (size: number, index: number, step: number = WINDOW_STEP, overlap: number = WINDOW_OVERLAP): number =>
  Math.min(size - index * step, step + overlap)

/** How many windows a region of `size` bytes has. */
export const windowCount = (size: number, step: number = WINDOW_STEP): number => Math.ceil(size / step)

/** Where a contiguous range was found. */
export interface Located {
  readonly window: Uint8Array
  readonly offset: number
}

/**
 * What the rings need of the memory that they lie in, and all that they know of it. `GuestMemory` is one; it need not come from a
 * vhost-user table.
 */
export interface MemoryPort {
  /** Adds the guest-physical range to `chain`, in as many pieces as it takes. Throws `OUT_OF_BOUNDS` for a range that is not all there. */
  append(address: number, length: number, writable: boolean, chain: Chain): void
  /** The guest-physical range as one run of bytes. Throws `OUT_OF_BOUNDS` for a range that is not all there, or is not in one run. */
  locate(address: number, length: number): Located
  /** The range at the address by which a ring's place is told; undefined if it is not all there, or not in one run. */
  locateUser(address: number, length: number): Located | undefined
}

/**
 * The guest's memory, by guest-physical and by front-end address. Every range is checked against the table before a view is
 * touched: an address the guest made up becomes a `DeviceError`, never a wild read. Neither the number of the regions nor their
 * order costs a lookup more than a few steps.
 */
export class GuestMemory implements MemoryPort {
  readonly #step: number
  readonly #byGuest: readonly MappedRegion[]
  readonly #byUser: readonly MappedRegion[]
  #last: MappedRegion | undefined

  /** Refuses (`MEMORY_TABLE`) empty or overlapping regions and windows that do not match the sizes. */
  constructor(regions: readonly MappedRegion[], { step = WINDOW_STEP, overlap = WINDOW_OVERLAP } = {}) {
    this.#step = step
    checkRegions(regions)
    for (const region of regions) {
      const count = windowCount(region.size, step)
      const fits = region.windows.every((window, i) => window.length === windowLength(region.size, i, step, overlap))
      if (region.windows.length !== count || !fits) {
        const what = `its ${count} windows do not cover ${region.size} bytes`
        throw guestError('MEMORY_TABLE', `memory region at ${hex(region.guestAddress)}`, what)
      }
    }
    this.#byGuest = inOrder(regions, 'guestAddress')
    this.#byUser = inOrder(regions, 'userAddress')
  }

  append(address: number, length: number, writable: boolean, chain: Chain): void {
    let at = address
    let left = length
    while (left > 0) {
      const region = this.#region(at)
      if (region === undefined) throw outOfBounds(address, length)
      const offset = at - region.guestAddress
      const index = Math.floor(offset / this.#step)
      const window = region.windows[index]!
      const start = offset - index * this.#step
      const n = Math.min(left, window.length - start)
      chain.append(window, start, n, writable)
      at += n
      left -= n
    }
  }

  locate(address: number, length: number): Located {
    const region = this.#region(address)
    const located = region && this.#within(region, address - region.guestAddress, length)
    if (located === undefined) throw outOfBounds(address, length)
    return located
  }

  locateUser(address: number, length: number): Located | undefined {
    const region = find(this.#byUser, 'userAddress', address)
    return region && this.#within(region, address - region.userAddress, length)
  }

  /** The same region as the last time, mostly. */
  #region(address: number): MappedRegion | undefined {
    const last = this.#last
    if (last !== undefined && address >= last.guestAddress && address - last.guestAddress < last.size) return last
    const region = find(this.#byGuest, 'guestAddress', address)
    if (region !== undefined) this.#last = region
    return region
  }

  #within(region: MappedRegion, offset: number, length: number): Located | undefined {
    const index = Math.floor(offset / this.#step)
    const window = region.windows[index]!
    const start = offset - index * this.#step
    return start + length <= window.length ? { window, offset: start } : undefined
  }
}

type AddressSpace = 'guestAddress' | 'userAddress'

const inOrder = <Region extends MemoryRegion>(regions: readonly Region[], space: AddressSpace): Region[] =>
  [...regions].sort((a, b) => a[space] - b[space])

/** The region that holds the address, of regions in order. */
function find(regions: readonly MappedRegion[], space: AddressSpace, address: number): MappedRegion | undefined {
  let low = 0
  let high = regions.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (regions[middle]![space] <= address) low = middle + 1
    else high = middle
  }
  const region = regions[low - 1]
  return region !== undefined && address - region[space] < region.size ? region : undefined
}

/** Refuses (`MEMORY_TABLE`) a table that is empty, or whose regions are empty, overlap or lie beyond what can be addressed. */
export function checkRegions(regions: readonly MemoryRegion[]): void {
  if (regions.length === 0) throw guestError('MEMORY_TABLE', 'memory table', 'it has no regions')
  for (const space of ['guestAddress', 'userAddress'] as const) {
    let end = 0
    for (const region of inOrder(regions, space)) {
      const start = region[space]
      if (
        !(region.size > 0) ||
        start < end ||
        !Number.isSafeInteger(start + region.size) ||
        !Number.isSafeInteger(region.fileOffset)
      ) {
        const what = `the region at ${space} ${hex(start)} of ${region.size} bytes is empty, overlaps another or does not fit`
        throw guestError('MEMORY_TABLE', 'memory table', what)
      }
      end = start + region.size
    }
  }
}

const outOfBounds = (address: number, length: number): DeviceError =>
  guestError('OUT_OF_BOUNDS', `descriptor at ${hex(address)} of ${length} bytes`, 'it does not lie inside guest memory')
