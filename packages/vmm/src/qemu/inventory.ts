import type { Bdf } from '@upcall/device-manager'
import type { Drive, PciDevice } from '../devices.js'
import { sameFunction } from '../pci-bus.js'
import type { Spares } from '../port.js'
import { type Hardware, pciId } from './hardware.js'

/**
 * What a machine has: what is plugged in, and the spares, which the guest has let go of and QEMU has not ejected. It outlives QEMU: the next
 * one is started with it.
 */
export class Inventory {
  readonly #first: Hardware
  readonly cpus: Set<number>
  readonly spareCpus = new Set<number>()
  readonly drives = new Map<string, Drive>()
  readonly pci = new Map<string, PciDevice>()
  readonly sparePci = new Map<string, PciDevice>()
  /** PCI functions that QEMU itself has: they are not plugged in or out. */
  fixed: readonly Bdf[] = []
  /** Bytes over those at boot: what the guest was asked to have, and what it has. */
  requested: number
  plugged = 0

  constructor(hardware: Hardware) {
    this.#first = hardware
    const { cpus, memory, machine, maxCpus } = hardware
    this.cpus = new Set(cpus)
    // A microvm has all of its vCPUs, and the kernel's command line says how many of them start.
    if (machine === 'microvm') for (let id = 0; id < maxCpus; id++) if (!this.cpus.has(id)) this.spareCpus.add(id)
    this.requested = memory.plugged
  }

  /** What the next QEMU is started with. */
  get hardware(): Hardware {
    const { boot, max } = this.#first.memory
    return {
      ...this.#first,
      cpus: ascending(this.cpus),
      memory: { boot, max, plugged: this.requested },
      pci: [...this.pci.values()],
    }
  }

  /** Bytes that the guest has. */
  get memory(): number {
    return this.#first.memory.boot + this.plugged
  }

  /** Whether the guest has so many bytes, and was asked for no others since. */
  hasMemory(bytes: number): boolean {
    return bytes === this.memory && this.requested === this.plugged
  }

  get spares(): Spares {
    return { cpus: ascending(this.spareCpus), pci: [...this.sparePci.values()].map(({ place }) => place) }
  }

  /** Whether a function that the guest reports was plugged in, and is not the machine's own. */
  isPluggedIn(place: Bdf): boolean {
    return !this.fixed.some((other) => sameFunction(other, place))
  }

  useCpu(id: number): void {
    this.spareCpus.delete(id)
    this.cpus.add(id)
  }

  /** QEMU is gone, and its spares with it. The vCPUs of a microvm are there from the start. */
  forgetSpares(): void {
    this.sparePci.clear()
    if (this.#first.machine !== 'microvm') this.spareCpus.clear()
  }

  /** The spare PCI device that QEMU calls so. */
  spareCalled(name: string): string | undefined {
    return [...this.sparePci.keys()].find((id) => pciId(id) === name)
  }
}

function ascending(ids: Iterable<number>): number[] {
  return [...ids].sort((a, b) => a - b)
}
