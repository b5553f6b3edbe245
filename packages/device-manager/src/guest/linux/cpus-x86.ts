import type { CpuRequest } from '@upcall/wire'
import type { CpuAnswer } from '../backend.js'
import { EINVAL, EIO } from '../errno.js'
import type { ApicIds } from './apic-ids.js'
import type { LinuxCpus } from './cpus.js'
import type { Waiting } from './waiting.js'

/** A CPU is there already, or not there already: nothing was changed. */
const UNCHANGED = 1

export interface CpuOptions {
  readonly waiting: Waiting
  /** How long a CPU may take to appear. */
  readonly cpuWaitMs: number
  readonly rollBack: boolean
}

/**
 * CPU requests of x86_64, which name APIC ids. As the patched 6.12 kernel answers them, but a batch is looked at as a whole before any of
 * it is done, and none of the requests that crash that kernel does more than fail.
 */
export class X86Cpus {
  readonly #cpus: LinuxCpus
  readonly #apicIds: ApicIds
  readonly #options: CpuOptions

  constructor(cpus: LinuxCpus, apicIds: ApicIds, options: CpuOptions) {
    this.#cpus = cpus
    this.#apicIds = apicIds
    this.#options = options
  }

  async add(request: CpuRequest): Promise<CpuAnswer> {
    const ids = apicIds(request)
    if (ids.length === 0 || new Set(ids).size < ids.length) return { result: EINVAL }
    const running = new Set((await this.#apicIds.online()).values())
    if (ids.some((id) => running.has(id))) return { result: EINVAL }
    // A CPU that the VMM has just plugged in takes the guest a moment to find.
    const { waiting, cpuWaitMs } = this.#options
    const numbers = await waiting.until(waiting.now() + cpuWaitMs, () => this.#find(ids))
    if (numbers === undefined || numbers.length < ids.length) return { result: EINVAL }
    const result = await this.#bringUp(ids, numbers)
    return result === 0 ? { result, index: ids.length } : { result }
  }

  async remove(request: CpuRequest): Promise<CpuAnswer> {
    const ids = apicIds(request)
    const online = await this.#apicIds.online()
    if (ids.length === 0 || new Set(ids).size < ids.length || ids.length >= online.size) return { result: EINVAL }
    const numberOf = new Map([...online].map(([number, id]) => [id, number]))
    const numbers: number[] = []
    for (const id of ids) {
      const number = numberOf.get(id)
      if (number === undefined) return { result: (await this.#numberOf(id)) === undefined ? EINVAL : UNCHANGED }
      if (number === 0 || !(await this.#cpus.switchable(number))) return { result: EINVAL }
      numbers.push(number)
    }
    const result = await this.#cpus.switchAll(numbers, false, this.#options.rollBack)
    return result === 0 ? { result, index: ids.length } : { result }
  }

  /**
   * The numbers of all ids; undefined while one is missing, and the empty list if one can never come. One that another program (a udev rule)
   * has brought online as soon as it appeared is found, too.
   */
  async #find(ids: readonly number[]): Promise<number[] | undefined> {
    const numbers: number[] = []
    for (const id of ids) {
      if (!(await this.#apicIds.conceivable(id))) return []
      const [running] = [...(await this.#apicIds.online())].find(([, each]) => each === id) ?? []
      const number = running ?? (await this.#numberOf(id)) ?? (await this.#tryUntil(id))
      if (number === undefined) return undefined
      numbers.push(number)
    }
    return numbers
  }

  /** The number of a CPU that is present and not online. */
  async #numberOf(id: number): Promise<number | undefined> {
    for (const number of await this.#offline()) if ((await this.#apicIds.of(number)) === id) return number
    return undefined
  }

  /** Without ACPI tables a CPU tells its APIC id only while it is online. What one try finds out is kept for all that follow. */
  async #tryUntil(id: number): Promise<number | undefined> {
    const likeliestFirst = (await this.#offline()).sort((a, b) => Number(b === id) - Number(a === id))
    for (const number of likeliestFirst) {
      if (!(await this.#apicIds.mute(number)) || (await this.#cpus.switch(number, true)) !== 0) continue
      const found = (await this.#apicIds.online()).get(number)
      await this.#switchOff(number)
      if (found === id) return number
    }
    return undefined
  }

  /** Of a CPU that nobody asked for: no answer can say that it runs. */
  async #switchOff(number: number): Promise<void> {
    if ((await this.#cpus.switch(number, false)) !== 0)
      throw new Error(`cpu${number} was switched on to see whose it is, and does not go off again`)
  }

  async #offline(): Promise<number[]> {
    const online = new Set(await this.#cpus.online())
    const numbers: number[] = []
    for (const number of await this.#cpus.present())
      if (!online.has(number) && (await this.#cpus.switchable(number))) numbers.push(number)
    return numbers
  }

  /** Once it is online a CPU says itself who it is. Should the firmware's tables have lied, the batch is taken back. */
  async #bringUp(ids: readonly number[], numbers: readonly number[]): Promise<number> {
    const result = await this.#cpus.switchAll(numbers, true, this.#options.rollBack)
    if (result !== 0) return result
    const online = await this.#apicIds.online()
    if (ids.every((id, i) => online.get(numbers[i]!) === id)) return 0
    for (const number of [...numbers].reverse()) await this.#switchOff(number)
    return EIO
  }
}

function apicIds(request: CpuRequest): readonly number[] {
  if (!('apicIds' in request)) throw new TypeError('an x86_64 guest reads apicIds, not a count')
  return request.apicIds
}
