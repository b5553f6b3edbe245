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
 * The guest's memory, by guest-physical and by front-end address. Every range is checked against the table before a view is
 * touched: an address the guest made up becomes a `DeviceError`, never a wild read.
 */
export class GuestMemory {
  readonly regions: readonly MappedRegion[]
  readonly #step: number
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
    this.regions = regions
  }

  /** Adds the guest-physical range to `chain`, in as many pieces as there are windows and adjacent regions under it. */
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

  /** The guest-physical range as one run of bytes (an indirect table). */
  locate(address: number, length: number): Located {
    const region = this.#region(address)
    const located = region && this.#within(region, address - region.guestAddress, length)
    if (located === undefined) throw outOfBounds(address, length)
    return located
  }

  /** The range at a front-end address as one run of bytes (a part of a ring). */
  locateUser(address: number, length: number): Located | undefined {
    for (const region of this.regions) {
      const offset = address - region.userAddress
      if (offset >= 0 && offset < region.size) return this.#within(region, offset, length)
    }
    return undefined
  }

  #region(address: number): MappedRegion | undefined {
    const last = this.#last
    if (last !== undefined && address >= last.guestAddress && address - last.guestAddress < last.size) return last
    for (const region of this.regions) {
      if (address >= region.guestAddress && address - region.guestAddress < region.size) {
        this.#last = region
        return region
      }
    }
    return undefined
  }

  #within(region: MappedRegion, offset: number, length: number): Located | undefined {
    const index = Math.floor(offset / this.#step)
    const window = region.windows[index]!
    const start = offset - index * this.#step
    return start + length <= window.length ? { window, offset: start } : undefined
  }
}

/** Refuses (`MEMORY_TABLE`) a table that is empty, or whose regions are empty, overlap or lie beyond what can be addressed. */
export function checkRegions(regions: readonly MemoryRegion[]): void {
  if (regions.length === 0) throw guestError('MEMORY_TABLE', 'memory table', 'it has no regions')
  for (const space of ['guestAddress', 'userAddress'] as const) {
    const sorted = [...regions].sort((a, b) => a[space] - b[space])
    let end = 0
    for (const region of sorted) {
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
