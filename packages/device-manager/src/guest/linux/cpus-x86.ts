import type { CpuRequest } from '@upcall/wire'
import type { CpuAnswer } from '../backend.js'
import { EINVAL, EIO } from '../errno.js'
import type { ApicIds } from './apic-ids.js'
import type { LinuxCpus } from './cpus.js'
import { LinuxGuestError } from './error.js'
import type { Waiting } from './waiting.js'

/** The CPU was in that state already: nothing was changed. */
const UNCHANGED = 1

export interface CpuOptions {
  readonly waiting: Waiting
  /** How long a CPU may take to appear. */
  readonly cpuTimeoutMs: number
  readonly rollBack: boolean
}

/** The CPUs at one moment, by their APIC ids as far as these are known. */
interface Seen {
  /** APIC id → CPU number, of the CPUs that are online and of those that are offline and can be switched. */
  readonly numberOf: ReadonlyMap<number, number>
  /** Numbers of the offline CPUs whose APIC id is not known. */
  readonly unnamed: readonly number[]
}

/**
 * CPU requests of x86_64, which name APIC ids. They are answered as the patched 6.12 kernel answers them, with two differences: a batch is
 * checked as a whole before any of it is done, and the requests that crash that kernel fail.
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
    // The guest needs a moment to find a CPU that the VMM has just plugged in.
    const { waiting, cpuTimeoutMs } = this.#options
    const numbers = await waiting.until(waiting.now() + cpuTimeoutMs, () => this.#find(ids))
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
      if (number === undefined) return { result: (await this.#look()).numberOf.has(id) ? UNCHANGED : EINVAL }
      if (number === 0 || !(await this.#cpus.switchable(number))) return { result: EINVAL }
      numbers.push(number)
    }
    const result = await this.#cpus.switchAll(numbers, false, this.#options.rollBack)
    return result === 0 ? { result, index: ids.length } : { result }
  }

  /**
   * The numbers of all ids; undefined while one is missing; the empty list if one can never appear. A CPU that another program (a udev
   * rule) brought online as soon as it appeared is found too.
   */
  async #find(ids: readonly number[]): Promise<number[] | undefined> {
    for (const id of ids) if (!(await this.#apicIds.conceivable(id))) return []
    let cpus = await this.#look()
    const numbers: number[] = []
    for (const id of ids) {
      let number = cpus.numberOf.get(id)
      if (number === undefined) {
        number = await this.#tryUntil(id, cpus.unnamed)
        if (number === undefined) return undefined
        // The tries have shown which CPUs these are, and taken time.
        cpus = await this.#look()
      }
      numbers.push(number)
    }
    return numbers
  }

  /** Reads each file once, however many CPUs are asked for. */
  async #look(): Promise<Seen> {
    const numberOf = new Map<number, number>()
    const unnamed: number[] = []
    for (const number of await this.#offline()) {
      const id = await this.#apicIds.of(number)
      if (id === undefined) unnamed.push(number)
      else if (!numberOf.has(id)) numberOf.set(id, number)
    }
    // What an online CPU reports outranks what the firmware says of an offline one.
    const online = await this.#apicIds.online()
    for (const [number, id] of online) numberOf.set(id, number)
    return { numberOf, unnamed: unnamed.filter((number) => !online.has(number)) }
  }

  /** Without ACPI tables a CPU reports its APIC id only while it is online. What one try finds out is kept for later requests. */
  async #tryUntil(id: number, unnamed: readonly number[]): Promise<number | undefined> {
    const likeliestFirst = [...unnamed].sort((a, b) => Number(b === id) - Number(a === id))
    for (const number of likeliestFirst) {
      if (!(await this.#apicIds.mute(number)) || (await this.#cpus.switch(number, true)) !== 0) continue
      const found = (await this.#apicIds.online()).get(number)
      await this.#switchOff(number)
      if (found === id) return number
    }
    return undefined
  }

  /** Takes a CPU offline that the request does not name: no answer could say that it runs. */
  async #switchOff(number: number): Promise<void> {
    if ((await this.#cpus.switch(number, false)) !== 0)
      throw new LinuxGuestError({
        code: 'FAILED',
        op: 'linuxGuest',
        subject: `cpu${number}`,
        what: 'the CPU was brought online to read its APIC id, and does not go offline again',
        next: "Look at the guest's kernel log.",
      })
  }

  async #offline(): Promise<number[]> {
    const online = new Set(await this.#cpus.online())
    const numbers: number[] = []
    for (const number of await this.#cpus.present())
      if (!online.has(number) && (await this.#cpus.switchable(number))) numbers.push(number)
    return numbers
  }

  /** An online CPU reports its own APIC id. If the firmware's tables were wrong, the batch is rolled back. */
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
