import type { MappedRegion, MemoryRegion } from '../src/machine/memory.js'
import type { Descriptor } from '../src/machine/memory-table.js'
import type { Platform } from '../src/machine/session.js'

/** Writes down what the session asks for. */
export class RecordingPlatform implements Platform {
  readonly closed: Descriptor[] = []
  /** Those that a region was mapped from: the platform closes them. */
  readonly used: Descriptor[] = []
  readonly mapped: MappedRegion[] = []
  readonly unmapped: MappedRegion[] = []
  readonly kicks = new Map<number, Descriptor | undefined>()
  readonly calls = new Map<number, Descriptor | undefined>()
  /** The bytes of the next region. */
  bytes: (region: MemoryRegion) => Uint8Array = ({ size }) => new Uint8Array(size)
  mapRegion(region: MemoryRegion, descriptor: Descriptor): MappedRegion {
    this.used.push(descriptor)
    const mapped = { ...region, windows: [this.bytes(region)] }
    this.mapped.push(mapped)
    return mapped
  }
  unmapRegion(region: MappedRegion): void {
    this.unmapped.push(region)
  }
  setKick(ring: number, descriptor: Descriptor | undefined): void {
    this.kicks.set(ring, descriptor)
  }
  setCall(ring: number, descriptor: Descriptor | undefined): void {
    this.calls.set(ring, descriptor)
  }
  setError(): void {}
  readonly notified: number[] = []
  notify(ring: number): void {
    this.notified.push(ring)
  }
  closeDescriptor(descriptor: Descriptor): void {
    this.closed.push(descriptor)
  }
}
