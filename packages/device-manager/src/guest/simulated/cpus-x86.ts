import type { CpuRequest } from '@upcall/wire'
import type { CpuAnswer, MaybePromise } from '../backend.js'
import { EEXIST, EINVAL, EIO } from '../errno.js'
import type { Quirks } from '../quirks.js'
import { ascending, type Cpus, type Wait } from './cpus.js'
import type { SimulatedHardware } from './hardware.js'
import { Oops } from './lock.js'

/** How long the boot CPU waits for a CPU that does not answer, in milliseconds; seen on a 6.1 guest. */
const ABSENT_CPU_MS = 12_200

/** One logical CPU. Its place in the table is its number, which it keeps once assigned. */
interface Cpu {
  /** The APIC id for which the number was assigned (the kernel's cpuid_to_apicid). */
  readonly id: number
  /** The APIC id by which the CPU is found now; undefined while it is unplugged (x86_cpu_to_apicid). */
  apicId: number | undefined
  /** Has a device in sysfs. */
  registered: boolean
  present: boolean
  online: boolean
}

export interface X86Options {
  /**
   * 5.10 and 6.1: a CPU gets its number when it is first added, and one counter of CPUs bounds every search. 6.12 and later: the
   * firmware's tables number all CPUs at boot.
   */
  readonly counted: boolean
  readonly cpus: number
  readonly maxCpus: number
  readonly hardware: SimulatedHardware
  readonly quirks: Pick<Quirks, 'partialCpuAdd' | 'slowAbsentCpu'>
  /** The value of the kernel's uninitialised variable, which answers a request that names no CPU. */
  readonly uninitialisedResult: number
}

/** x86_64, after guest kernel patch 0003 in its two generations. */
export class X86Cpus implements Cpus {
  readonly #options: X86Options
  readonly #cpus: Cpu[] = []
  /** How many CPUs are plugged in, by the kernel's own count (num_processors). A search stops at this number. */
  #processors: number

  constructor(options: X86Options) {
    this.#options = options
    this.#processors = options.cpus
    for (let id = 0; id < (options.counted ? options.cpus : options.maxCpus); id++) {
      const on = id < options.cpus
      this.#cpus.push({ id, apicId: on ? id : undefined, registered: on, present: on, online: on })
    }
  }

  online(): number[] {
    return ascending(this.#cpus.filter((cpu) => cpu.online).map((cpu) => cpu.id))
  }

  present(): number[] {
    return ascending(this.#cpus.filter((cpu) => cpu.present).map((cpu) => cpu.id))
  }

  setOnline(id: number, online: boolean): boolean {
    const number = this.#cpus.findIndex((cpu) => cpu.registered && cpu.id === id)
    if (number <= 0) return false
    this.#cpus[number]!.online = online
    return true
  }

  add(request: CpuRequest, wait: Wait): MaybePromise<CpuAnswer> {
    const ids = apicIds(request)
    // The kernel sets the result in a loop, which does not run here.
    if (ids.length === 0) return { result: this.#options.uninitialisedResult, index: 0 }
    if (ids.some((id) => this.#numberOf(id) !== undefined)) return { result: EINVAL }
    const added: number[] = []
    for (const id of ids) {
      const number = this.#claim(id)
      if (number === undefined) return this.#failed(EINVAL, added)
      const cpu = this.#cpus[number]!
      cpu.apicId = id
      cpu.present = true
      this.#processors += 1
      if (cpu.registered) {
        // Registering its device a second time fails, and the roll-back removes the bookkeeping of a CPU that runs.
        this.#unplug(cpu)
        return this.#failed(EEXIST, added)
      }
      cpu.registered = true
      if (!this.#options.hardware.hasCpu(id)) {
        const giveUp = () => {
          cpu.registered = false
          this.#unplug(cpu)
          return this.#failed(EIO, added)
        }
        return this.#options.quirks.slowAbsentCpu ? wait(ABSENT_CPU_MS).then(giveUp) : giveUp()
      }
      cpu.online = true
      added.push(number)
    }
    return { result: 0, index: ids.length }
  }

  remove(request: CpuRequest): CpuAnswer {
    const ids = apicIds(request)
    const bound = this.#options.counted ? this.#processors : this.#cpus.filter((cpu) => cpu.online).length
    if (ids.length >= bound) return { result: EINVAL, index: 0 }
    if (ids.length === 0) return { result: this.#options.uninitialisedResult, index: 0 }
    // The number of an id that is not found is −1, which the kernel tests against a bitmap without a range check.
    const absent = ids.find((id) => this.#numberOf(id) === undefined)
    if (absent !== undefined) throw new Oops(`page fault: is CPU -1 (APIC id ${absent}) possible?`, { holdsLock: false })
    if (!this.#options.quirks.partialCpuAdd) {
      const obstacle = ids.map((id) => this.#obstacle(this.#numberOf(id)!)).find((result) => result !== 0)
      if (obstacle !== undefined) return { result: obstacle }
    }
    for (const id of ids) {
      // It was found above, but the removal of another CPU may have put it out of reach. The lock is held by then.
      const number = this.#numberOf(id)
      if (number === undefined) throw new Oops(`NULL pointer dereference: offlining CPU -1 (APIC id ${id})`, { holdsLock: true })
      const obstacle = this.#obstacle(number)
      if (obstacle !== 0) return { result: obstacle }
      this.#takeDown(number)
    }
    return { result: 0, index: ids.length }
  }

  /** The number under which an APIC id is found. */
  #numberOf(id: number): number | undefined {
    const searched = this.#options.counted ? this.#cpus.slice(0, this.#processors) : this.#cpus
    const number = searched.findIndex((cpu) => cpu.apicId === id)
    return number < 0 ? undefined : number
  }

  /** The number that an APIC id gets, or undefined if there is no number left for it. */
  #claim(id: number): number | undefined {
    const known = this.#cpus.findIndex((cpu) => cpu.id === id)
    if (!this.#options.counted) return known >= 0 && this.#options.hardware.hasCpu(id) ? known : undefined
    if (known >= 0) return known
    if (this.#cpus.length >= this.#options.maxCpus) return undefined
    return this.#cpus.push({ id, apicId: undefined, registered: false, present: false, online: false }) - 1
  }

  /** The result that prevents a removal, or 0: the boot CPU cannot be removed, and a CPU that is offline gets +1. */
  #obstacle(number: number): number {
    if (number === 0) return EINVAL
    return this.#cpus[number]!.online ? 0 : 1
  }

  #takeDown(number: number): void {
    const cpu = this.#cpus[number]!
    cpu.online = false
    cpu.registered = false
    this.#unplug(cpu)
  }

  #unplug(cpu: Cpu): void {
    cpu.present = false
    cpu.apicId = undefined
    this.#processors -= 1
  }

  #failed(result: number, added: readonly number[]): CpuAnswer {
    if (!this.#options.quirks.partialCpuAdd) for (const number of [...added].reverse()) this.#takeDown(number)
    return { result }
  }
}

function apicIds(request: CpuRequest): readonly number[] {
  if (!('apicIds' in request)) throw new TypeError('an x86_64 guest reads apicIds, not a count')
  return request.apicIds
}
