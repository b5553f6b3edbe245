import { madtApicIds, processorUids } from './acpi.js'
import type { Files } from './files.js'

const CPUS = '/sys/devices/system/cpu'
const TABLES = '/sys/firmware/acpi/tables'

interface Firmware {
  /** Processor UID → APIC id; undefined without a MADT. */
  madt: Map<number, number> | undefined
  /** Every APIC id of the MADT. */
  ids: ReadonlySet<number> | undefined
  /** Processor's name → UID. */
  processors: Map<string, number>
}

/**
 * The APIC ids of the guest's CPUs. CPU numbers do not tell them: the kernel assigns numbers in the order of plugging, so that the CPU with
 * APIC id 3 may be cpu1 (seen on a 6.1 guest). An assigned number stays with its APIC id until the next boot.
 */
export class ApicIds {
  readonly #files: Files
  /** The APIC id that /proc/cpuinfo has shown of each CPU while it was online. */
  readonly #seen = new Map<number, number>()
  #firmware: Promise<Firmware> | undefined

  constructor(files: Files) {
    this.#files = files
  }

  /** CPU number → APIC id of the CPUs that are online. */
  async online(): Promise<Map<number, number>> {
    const online = new Map<number, number>()
    for (const block of ((await this.#files.read('/proc/cpuinfo')) ?? '').split('\n\n')) {
      const number = /^processor\s*: (\d+)$/m.exec(block)?.[1]
      const id = (/^apicid\s*: (\d+)$/m.exec(block) ?? /^initial apicid\s*: (\d+)$/m.exec(block))?.[1]
      if (number === undefined || id === undefined) continue
      online.set(Number(number), Number(id))
      this.#seen.set(Number(number), Number(id))
    }
    return online
  }

  /** The APIC id of a CPU, online or not; undefined if the CPU was never online and the firmware does not tell. */
  async of(number: number): Promise<number | undefined> {
    const seen = this.#seen.get(number)
    if (seen !== undefined) return seen
    const { madt, processors } = await this.#tables()
    if (madt === undefined) return undefined
    const node = `${CPUS}/cpu${number}/firmware_node`
    const name = (await this.#files.read(`${node}/path`))?.slice(-4)
    const uid = (await this.#files.read(`${node}/uid`)) ?? (name && processors.get(name))
    return uid === undefined || uid === '' ? undefined : madt.get(Number(uid))
  }

  /**
   * True if a CPU reports its APIC id only when it is online. False for a CPU that was plugged in just now: its ACPI object is tied to it a
   * little after it has appeared, and the kernel is not done with it before.
   */
  async mute(number: number): Promise<boolean> {
    if ((await this.of(number)) !== undefined) return false
    const tied = (cpu: number) => this.#files.exists(`${CPUS}/cpu${cpu}/firmware_node`)
    return (await tied(number)) || !(await tied(0))
  }

  /** False if the firmware has a table of CPUs that does not list this APIC id. */
  async conceivable(id: number): Promise<boolean> {
    const { ids } = await this.#tables()
    return ids === undefined || ids.has(id)
  }

  #tables(): Promise<Firmware> {
    this.#firmware ??= readFirmware(this.#files)
    return this.#firmware
  }
}

async function readFirmware(files: Files): Promise<Firmware> {
  const madt = await files.bytes(`${TABLES}/APIC`)
  const code = (await files.list(TABLES)).filter((name) => /^[DS]SDT/.test(name))
  const tables = await Promise.all(code.map((name) => files.bytes(`${TABLES}/${name}`)))
  const apicIds = madt && madtApicIds(madt)
  return {
    madt: apicIds,
    ids: apicIds && new Set(apicIds.values()),
    processors: processorUids(tables.filter((table) => table !== undefined)),
  }
}
