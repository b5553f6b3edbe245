import type { PciRequest } from '@upcall/wire'
import { ENODEV } from '../errno.js'
import { LinuxGuestError } from './error.js'
import { type Files, NO_FILE } from './files.js'
import type { Waiting } from './waiting.js'

const DEVICES = '/sys/bus/pci/devices'
const BUSES = '/sys/class/pci_bus'
/** A device's slot may have to power up first: a scan that came too early has to be repeated. */
const RESCAN_MS = 250

export interface PciOptions {
  readonly waiting: Waiting
  /** How long a function may take to appear, or to disappear. */
  readonly pciTimeoutMs: number
}

/** PCI functions of domain 0, through sysfs. */
export class LinuxPci {
  readonly #files: Files
  readonly #options: PciOptions

  constructor(files: Files, options: PciOptions) {
    this.#files = files
    this.#options = options
  }

  /**
   * A function that is there already is a success. The last step is always a scan: the function's directory appears before its driver is
   * bound, and a scan waits for the guest's own hotplug, which may be adding it (in a VM with ACPI).
   */
  async add(slot: PciRequest): Promise<number> {
    const { waiting, pciTimeoutMs } = this.#options
    const rescan = `${BUSES}/0000:${hex(slot.bus)}/rescan`
    let scanAt = waiting.now()
    const result = await waiting.until(waiting.now() + pciTimeoutMs, async () => {
      if (waiting.now() < scanAt && !(await this.#has(slot))) return undefined
      scanAt = waiting.now() + RESCAN_MS
      const refused = await this.#files.write(rescan, '1')
      if (await this.#has(slot)) return 0
      return refused === NO_FILE ? ENODEV : refused || undefined
    })
    return result ?? ENODEV
  }

  async remove(slot: PciRequest): Promise<number> {
    const { waiting, pciTimeoutMs } = this.#options
    if (!(await this.#has(slot))) return ENODEV
    const result = await this.#files.write(`${DEVICES}/${address(slot)}/remove`, '1')
    // Another program may have removed it, or may be doing so: the kernel removes a device's files before the device.
    if (result !== 0 && result !== NO_FILE) return (await this.#has(slot)) ? result : 0
    const gone = async () => ((await this.#has(slot)) ? undefined : true)
    if (await waiting.until(waiting.now() + pciTimeoutMs, gone)) return 0
    throw new LinuxGuestError({
      code: 'FAILED',
      op: 'linuxGuest',
      subject: `DEL_PCI ${address(slot)}`,
      what: `the function is still there ${pciTimeoutMs} ms after its removal`,
      next: "Look at the guest's kernel log.",
    })
  }

  /** BDFs with their domain, ascending. */
  list(): Promise<string[]> {
    return this.#files.list(DEVICES)
  }

  #has(slot: PciRequest): Promise<boolean> {
    return this.#files.exists(`${DEVICES}/${address(slot)}`)
  }
}

/** As the kernel names the function's device. */
function address({ bus, devfn }: PciRequest): string {
  return `0000:${hex(bus)}:${hex(devfn >> 3)}.${devfn & 7}`
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0')
}
