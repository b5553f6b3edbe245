import type { CpuRequest } from '@upcall/wire'
import type { CpuAnswer } from '../backend.js'
import { EINVAL } from '../errno.js'
import type { Quirks } from '../quirks.js'
import { ascending, type Cpus } from './cpus.js'
import type { SimulatedHardware } from './hardware.js'
import { Oops } from './lock.js'

export interface ArmOptions {
  readonly cpus: number
  readonly maxCpus: number
  readonly hardware: SimulatedHardware
  readonly quirks: Pick<Quirks, 'partialCpuAdd'>
}

/**
 * aarch64, after guest kernel patch 0005: a request carries a count, and the CPUs' numbers follow from how many are online. All CPUs up to
 * `maxCpus` are present from boot, as the device tree lists them.
 */
export class ArmCpus implements Cpus {
  readonly #options: ArmOptions
  readonly #online = new Set<number>()

  constructor(options: ArmOptions) {
    this.#options = options
    for (let id = 0; id < options.cpus; id++) this.#online.add(id)
  }

  online(): number[] {
    return ascending(this.#online)
  }

  present(): number[] {
    return Array.from({ length: this.#options.maxCpus }, (_, id) => id)
  }

  setOnline(id: number, online: boolean): boolean {
    if (id === 0 || id >= this.#options.maxCpus) return false
    if (online) this.#online.add(id)
    else this.#online.delete(id)
    return true
  }

  add(request: CpuRequest): CpuAnswer {
    const before = this.#online.size
    return this.#each(
      count(request),
      (i) => this.#bringUp(before + i),
      (done) => before + done,
    )
  }

  remove(request: CpuRequest): CpuAnswer {
    const before = this.#online.size
    const wanted = count(request)
    if (wanted >= before) return { result: EINVAL, index: 0 }
    return this.#each(
      wanted,
      (i) => this.#takeDown(before - i - 1),
      (done) => before - done,
    )
  }

  /** Stops at the first step that does not return 0. The index is the number of CPUs that the kernel then believes to be online. */
  #each(wanted: number, step: (i: number) => number, indexAfter: (done: number) => number): CpuAnswer {
    const before = [...this.#online]
    let done = 0
    let result = 0
    while (done < wanted) {
      result = step(done)
      if (result !== 0) break
      done += 1
    }
    if (result !== 0 && !this.#options.quirks.partialCpuAdd) {
      this.#online.clear()
      for (const id of before) this.#online.add(id)
      done = 0
    }
    return { result, index: indexAfter(done) & 0xff }
  }

  #bringUp(id: number): number {
    // A CPU that does not exist has no device, and the kernel uses the device all the same.
    if (id >= this.#options.maxCpus) throw new Oops(`NULL pointer dereference: onlining CPU ${id}`, { holdsLock: true })
    if (this.#online.has(id)) return 1
    // PSCI does not know this vCPU.
    if (!this.#options.hardware.hasCpu(id)) return EINVAL
    this.#online.add(id)
    return 0
  }

  #takeDown(id: number): number {
    return this.#online.delete(id) ? 0 : 1
  }
}

function count(request: CpuRequest): number {
  if (!('count' in request)) throw new TypeError('an aarch64 guest reads a count, not apicIds')
  return request.count
}
