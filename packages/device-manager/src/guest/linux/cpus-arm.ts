import type { CpuRequest } from '@upcall/wire'
import type { CpuAnswer } from '../backend.js'
import { EINVAL } from '../errno.js'
import type { LinuxCpus } from './cpus.js'
import type { CpuOptions } from './cpus-x86.js'

/** The CPU was in that state already: nothing was changed. */
const UNCHANGED = 1

/**
 * CPU requests of aarch64, which carry a count. The numbers follow from how many CPUs are online, counted up for add and down for remove,
 * as in the patched kernels. A batch is checked as a whole before any of it is done.
 */
export class ArmCpus {
  readonly #cpus: LinuxCpus
  readonly #options: CpuOptions

  constructor(cpus: LinuxCpus, options: CpuOptions) {
    this.#cpus = cpus
    this.#options = options
  }

  async add(request: CpuRequest): Promise<CpuAnswer> {
    const wanted = count(request)
    const online = await this.#cpus.online()
    const running = new Set(online)
    const possible = new Set(await this.#cpus.possible())
    const numbers = Array.from({ length: wanted }, (_, i) => online.length + i)
    if (numbers.some((number) => !possible.has(number))) return this.#answer(EINVAL)
    if (numbers.some((number) => running.has(number))) return this.#answer(UNCHANGED)
    const { waiting, cpuTimeoutMs, rollBack } = this.#options
    const there = async () => {
      for (const number of numbers) if (!(await this.#cpus.switchable(number))) return undefined
      return true
    }
    if (!(await waiting.until(waiting.now() + cpuTimeoutMs, there))) return this.#answer(EINVAL)
    return this.#answer(await this.#cpus.switchAll(numbers, true, rollBack))
  }

  async remove(request: CpuRequest): Promise<CpuAnswer> {
    const wanted = count(request)
    const online = await this.#cpus.online()
    if (wanted >= online.length) return this.#answer(EINVAL)
    const running = new Set(online)
    const numbers = Array.from({ length: wanted }, (_, i) => online.length - i - 1)
    if (numbers.some((number) => !running.has(number))) return this.#answer(UNCHANGED)
    for (const number of numbers) if (!(await this.#cpus.switchable(number))) return this.#answer(EINVAL)
    return this.#answer(await this.#cpus.switchAll(numbers, false, this.#options.rollBack))
  }

  /** The index has one byte in the kernel. */
  async #answer(result: number): Promise<CpuAnswer> {
    return { result, index: (await this.#cpus.online()).length & 0xff }
  }
}

function count(request: CpuRequest): number {
  if (!('count' in request)) throw new TypeError('an aarch64 guest reads a count, not apicIds')
  return request.count
}
