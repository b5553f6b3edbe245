import type { Arch, MmioRequest } from '@upcall/wire'
import { EBUSY, EEXIST, EINVAL, ENODEV } from '../errno.js'

/** A virtio-mmio platform device. `base` and `size` in bytes; `irq` as the request had it. */
export interface MmioWindow {
  base: bigint
  size: bigint
  irq: number
}

/** The line that several devices may share, on both architectures, although Dragonball's shared line on aarch64 is 32. */
const SHARED_IRQ = 5

/** The platform devices that upcall and the command line added, under the kernel's rules (guest kernel patch 0004). */
export class MmioWindows {
  readonly #arch: Arch
  #windows: MmioWindow[]

  constructor(arch: Arch, windows: readonly MmioWindow[]) {
    this.#arch = arch
    this.#windows = windows.map(({ base, size, irq }) => ({ base, size, irq }))
  }

  list(): MmioWindow[] {
    return this.#windows.map((window) => ({ ...window }))
  }

  /** 0 says that a platform device was registered. The kernel does not check whether a device answers at that address. */
  add({ base, size, irq }: MmioRequest): number {
    if (this.#refusesIrq(irq)) return EINVAL
    const last = lastByte(base, size)
    for (const other of this.#windows) {
      const otherLast = lastByte(other.base, other.size)
      if (irq !== SHARED_IRQ && irq === other.irq) return EEXIST
      if (other.base < last && otherLast > base) return EEXIST
    }
    // The check above compares with `<`. The resource tree refuses what that lets through: an empty window, or a shared last byte.
    if (last < base) return EBUSY
    if (this.#windows.some((other) => other.base <= last && lastByte(other.base, other.size) >= base)) return EBUSY
    this.#windows.push({ base, size, irq })
    return 0
  }

  remove({ base, size, irq }: MmioRequest): number {
    if (this.#refusesIrq(irq)) return EINVAL
    const at = this.#windows.findIndex((window) => window.base === base && window.size === size && window.irq === irq)
    if (at < 0) return ENODEV
    this.#windows.splice(at, 1)
    return 0
  }

  /** On aarch64 `irq` is the number of a GIC SPI, and 0 is the first one. */
  #refusesIrq(irq: number): boolean {
    return this.#arch === 'x86_64' && irq === 0
  }
}

function lastByte(base: bigint, size: bigint): bigint {
  return BigInt.asUintN(64, base + size - 1n)
}
