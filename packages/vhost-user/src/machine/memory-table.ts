import { protocolError } from './errors.js'
import { checkRegions, GuestMemory, type MappedRegion, type MemoryRegion } from './memory.js'
import { type DescribedRegion, MAX_MEMORY_SLOTS } from './message-format.js'
import { asOrdinary, isXenRegion, numbered, type XenRegion, xenError } from './xen-region.js'

/** A file descriptor, as an object that only the platform can open. */
export type Descriptor = object

/** Where the memory behind a descriptor becomes bytes. Every call is synchronous. */
export interface RegionMapper {
  /** Maps a region of the file behind the descriptor, which belongs to the callee. Throws if that cannot be done. */
  mapRegion(region: MemoryRegion, descriptor: Descriptor): MappedRegion
  /** After this no view into the region reaches guest memory any more. */
  unmapRegion(region: MappedRegion): void
  /**
   * Maps memory of another Xen domain, as `mapRegion` does a file; throws for kinds of memory that it cannot map. Without it, XEN_MMAP
   * is not offered.
   */
  readonly mapXenRegion?: (region: XenRegion, descriptor: Descriptor) => MappedRegion
}

/** Unmaps the regions that have left the table: to be called when no ring lies in them any more. */
export type LetGo = () => void

/**
 * The regions that a front end has handed over: all at once (SET_MEM_TABLE), or one by one (ADD_MEM_REG, REM_MEM_REG). What throws
 * changes nothing.
 */
export class MemoryTable {
  readonly #mapper: RegionMapper
  #regions = new Map<string, MappedRegion>()
  #memory: GuestMemory | undefined

  constructor(mapper: RegionMapper) {
    this.#mapper = mapper
  }

  /** Undefined while there is no region. Every change makes a new one; the regions that stay keep their views. */
  get memory(): GuestMemory | undefined {
    return this.#memory
  }

  /** Another table instead of this one. The descriptors that were used are taken out of the list; the others are the caller's. */
  replace(described: readonly DescribedRegion[], descriptors: Descriptor[]): LetGo {
    if (descriptors.length !== described.length) {
      throw protocolError('SET_MEM_TABLE', `there are ${described.length} regions and ${descriptors.length} descriptors`)
    }
    const plans = described.map((region) => this.#plan(region))
    checkRegions(plans.map(({ region }) => region))
    const old = this.#regions
    const regions = new Map<string, MappedRegion>()
    try {
      for (const plan of plans) regions.set(keyOf(plan.region), plan.map(descriptors.shift()!))
      this.#become(regions)
    } catch (error) {
      this.#unmap(regions)
      throw error
    }
    return () => this.#unmap(old)
  }

  /** One region more. Its descriptor is taken out of the list once it is used. */
  add(described: DescribedRegion, descriptors: Descriptor[]): void {
    if (descriptors.length !== 1) throw protocolError('ADD_MEM_REG', `there are ${descriptors.length} descriptors, not 1`)
    if (this.#regions.size >= MAX_MEMORY_SLOTS) throw protocolError('ADD_MEM_REG', `all ${MAX_MEMORY_SLOTS} slots are in use`)
    const plan = this.#plan(described)
    checkRegions([...this.#regions.values(), plan.region])
    const mapped = plan.map(descriptors.pop()!)
    try {
      this.#become(new Map(this.#regions).set(keyOf(plan.region), mapped))
    } catch (error) {
      this.#mapper.unmapRegion(mapped)
      throw error
    }
  }

  /** The region with the same addresses and size; where it lies in its file does not count. */
  remove(described: DescribedRegion): LetGo {
    const key = keyOf(numbered(described))
    const region = this.#regions.get(key)
    if (region === undefined) throw protocolError('REM_MEM_REG', 'there is no region with these addresses and this size')
    const regions = new Map(this.#regions)
    regions.delete(key)
    this.#become(regions)
    return () => this.#mapper.unmapRegion(region)
  }

  /** Lets go of everything. */
  clear(): void {
    this.#unmap(this.#regions)
    this.#become(new Map())
  }

  #become(regions: Map<string, MappedRegion>): void {
    this.#memory = regions.size === 0 ? undefined : new GuestMemory([...regions.values()])
    this.#regions = regions
  }

  #unmap(regions: ReadonlyMap<string, MappedRegion>): void {
    for (const region of regions.values()) this.#mapper.unmapRegion(region)
  }

  /** How the region is going to be mapped. Throws if it cannot be, before anything is done. */
  #plan(described: DescribedRegion): Plan {
    const ordinary = isXenRegion(described) ? asOrdinary(described) : described
    if (ordinary !== undefined) {
      return { region: ordinary, map: (descriptor) => this.#mapper.mapRegion(ordinary, descriptor) }
    }
    const xen = described as XenRegion
    const { mapXenRegion } = this.#mapper
    if (mapXenRegion === undefined) throw xenError(xen, 'this process cannot map the memory of a Xen domain')
    return { region: numbered(xen), map: (descriptor) => mapXenRegion.call(this.#mapper, xen, descriptor) }
  }
}

interface Plan {
  readonly region: MemoryRegion
  readonly map: (descriptor: Descriptor) => MappedRegion
}

/** What REM_MEM_REG knows a region by. */
const keyOf = ({ guestAddress, size, userAddress }: MemoryRegion): string => `${guestAddress} ${userAddress} ${size}`
