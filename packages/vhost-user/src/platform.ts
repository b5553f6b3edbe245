import { textOf } from '@upcall/foundation/error'
import { DeviceError, hex, protocolError } from './machine/errors.js'
import { type MappedRegion, type MemoryRegion, WINDOW_OVERLAP, WINDOW_STEP } from './machine/memory.js'
import type { Platform } from './machine/session.js'
import type { Binding, Descriptor, Mapping } from './native/binding.js'

/** What the session needs done, by the addon: maps memory, watches kicks, interrupts the guest. */
export class BindingPlatform implements Platform {
  readonly #binding: Binding
  readonly #onKick: () => void
  readonly #onBroken: (error: DeviceError) => void
  readonly #mappings = new Map<MappedRegion, Mapping>()
  readonly #kicks = new Map<number, Descriptor>()
  readonly #calls = new Map<number, Descriptor>()
  readonly #errors = new Map<number, Descriptor>()

  /** @param onBroken called for a descriptor of the front end that is not what it should be. It is closed by then. */
  constructor(binding: Binding, onKick: () => void, onBroken: (error: DeviceError) => void) {
    this.#binding = binding
    this.#onKick = onKick
    this.#onBroken = onBroken
  }

  mapRegion(region: MemoryRegion, descriptor: Descriptor): MappedRegion {
    const { guestAddress, fileOffset, size } = region
    try {
      const { mapping, windows } = this.#binding.map(descriptor, fileOffset, size, WINDOW_STEP, WINDOW_STEP + WINDOW_OVERLAP)
      const mapped = { ...region, windows: windows.map((window) => new Uint8Array(window)) }
      this.#mappings.set(mapped, mapping)
      return mapped
    } catch (error) {
      const what = `it cannot be mapped: ${textOf(error)}`
      throw new DeviceError({ code: 'MEMORY_TABLE', subject: `memory region at ${hex(guestAddress)}`, what, cause: error })
    } finally {
      // A mapping outlives its descriptor.
      this.#binding.close(descriptor)
    }
  }

  unmapRegion(region: MappedRegion): void {
    const mapping = this.#mappings.get(region)
    if (mapping !== undefined) this.#binding.unmap(mapping)
    this.#mappings.delete(region)
  }

  setKick(ring: number, descriptor: Descriptor | undefined): void {
    this.#replace(this.#kicks, ring, descriptor)
    if (descriptor === undefined) return
    this.#try('SET_VRING_KICK', this.#kicks, ring, () =>
      this.#binding.watch(descriptor, this.#binding.READABLE, () => {
        if (this.#try('SET_VRING_KICK', this.#kicks, ring, () => this.#binding.drain(descriptor))) this.#onKick()
      }),
    )
  }

  setCall(ring: number, descriptor: Descriptor | undefined): void {
    this.#replace(this.#calls, ring, descriptor)
  }

  setError(ring: number, descriptor: Descriptor | undefined): void {
    this.#replace(this.#errors, ring, descriptor)
  }

  closeDescriptor(descriptor: Descriptor): void {
    this.#binding.close(descriptor)
  }

  /** Interrupts the guest for a ring. */
  notify(ring: number): void {
    const call = this.#calls.get(ring)
    if (call !== undefined) this.#try('SET_VRING_CALL', this.#calls, ring, () => this.#binding.signal(call))
  }

  /** Tells the front end that the device has given up on the guest's rings. */
  reportFault(): void {
    for (const [ring, descriptor] of this.#errors) {
      this.#try('SET_VRING_ERR', this.#errors, ring, () => this.#binding.signal(descriptor))
    }
  }

  /** Uses a descriptor of the front end as an eventfd. It may be anything else. */
  #try(request: string, map: Map<number, Descriptor>, ring: number, use: () => void): boolean {
    try {
      use()
      return true
    } catch (error) {
      this.#replace(map, ring, undefined)
      const what = `the descriptor is not a usable eventfd: ${textOf(error)}`
      this.#onBroken(protocolError(`${request} for ring ${ring}`, what, error))
      return false
    }
  }

  #replace(map: Map<number, Descriptor>, ring: number, descriptor: Descriptor | undefined): void {
    const old = map.get(ring)
    if (old !== undefined) this.#binding.close(old)
    if (descriptor === undefined) map.delete(ring)
    else map.set(ring, descriptor)
  }
}
