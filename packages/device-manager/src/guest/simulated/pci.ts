import type { PciRequest } from '@upcall/wire'
import { ENODEV } from '../errno.js'
import type { SimulatedHardware } from './hardware.js'

/** A PCI function in domain 0. `devfn` is `slot << 3 | function`. */
export interface PciFunction {
  bus: number
  devfn: number
}

/** The PCI functions that the guest knows of (guest kernel patch 0008). */
export class PciFunctions {
  readonly #hardware: SimulatedHardware
  #known: PciFunction[]

  constructor(hardware: SimulatedHardware, known: readonly PciFunction[]) {
    this.#hardware = hardware
    this.#known = known.map(({ bus, devfn }) => ({ bus, devfn }))
  }

  list(): PciFunction[] {
    return this.#known.map((known) => ({ ...known }))
  }

  /** Scans the slot. A function that is known already is a success. */
  add({ bus, devfn }: PciRequest): number {
    if (this.#find(bus, devfn) >= 0) return 0
    if (!this.#hardware.hasPci(bus, devfn)) return ENODEV
    this.#known.push({ bus, devfn })
    return 0
  }

  remove({ bus, devfn }: PciRequest): number {
    const at = this.#find(bus, devfn)
    if (at < 0) return ENODEV
    this.#known.splice(at, 1)
    return 0
  }

  #find(bus: number, devfn: number): number {
    return this.#known.findIndex((known) => known.bus === bus && known.devfn === devfn)
  }
}
