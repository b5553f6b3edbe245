import { expect } from 'vitest'
import type { MappedRegion, MemoryRegion } from '../src/machine/memory.js'
import type { Descriptor } from '../src/machine/memory-table.js'
import { RecordingPlatform } from './session-scene.js'

/** Looks over the session's shoulder: a region is mapped once, unmapped once, and never while a ring could still reach it. */
export class StrictPlatform extends RecordingPlatform {
  readonly live = new Set<MappedRegion>()
  readonly open = new Set<Descriptor>()
  /** Nothing can be mapped. */
  fail = false
  descriptors(count: number): Descriptor[] {
    const made = Array.from({ length: count }, () => ({}))
    for (const descriptor of made) this.open.add(descriptor)
    return made
  }
  override mapRegion(region: MemoryRegion, descriptor: Descriptor): MappedRegion {
    expect(this.open.delete(descriptor)).toBe(true)
    if (this.fail) throw new Error('out of memory')
    const mapped = { ...region, windows: [this.bytes(region)] }
    this.live.add(mapped)
    return mapped
  }
  override unmapRegion(region: MappedRegion): void {
    expect(this.live.delete(region)).toBe(true)
    // A detached window has no bytes; a ring over it would read nothing.
    ;(region.windows as Uint8Array[])[0] = new Uint8Array(0)
  }
  override closeDescriptor(descriptor: Descriptor): void {
    expect(this.open.delete(descriptor)).toBe(true)
  }
  override setKick(ring: number, descriptor: Descriptor | undefined): void {
    super.setKick(ring, this.#take(descriptor))
  }
  override setCall(ring: number, descriptor: Descriptor | undefined): void {
    super.setCall(ring, this.#take(descriptor))
  }
  override setError(_ring: number, descriptor: Descriptor | undefined): void {
    this.#take(descriptor)
  }
  #take(descriptor: Descriptor | undefined): Descriptor | undefined {
    if (descriptor !== undefined) this.open.delete(descriptor)
    return descriptor
  }
}
