// A Linux in memory for the tests: the files that the back end reads, and what the kernel does when some are written. Time jumps to the
// next timer whenever nothing else is left to do.
import { ManualClock, settle } from '@upcall/foundation/testing/manual-clock'
import type { Clock } from '@upcall/server'
import type { Files } from '../src/guest/linux/files.js'

export const EIO = -5
export const EACCES = -13

export interface FakeCpu {
  /** CPU number, given out by the kernel. */
  number: number
  apicId: number
  online: boolean
  /** The errno that switching it on or off ends with. */
  refusesOn?: number
  refusesOff?: number
  /** ACPI object's path and, for `Device` objects, its UID; `undefined` while it is not tied, or where there is no ACPI. */
  node?: { path: string; uid?: string } | undefined
}

const CPUS = '/sys/devices/system/cpu'

export class FakeLinux implements Files {
  readonly cpus = new Map<number, FakeCpu>()
  readonly fixed = new Map<string, string | Uint8Array>()
  /** Called for writes to any other path: the errno, or undefined where there is no such file. */
  onWrite: (path: string, text: string) => number | undefined | Promise<number | undefined> = () => undefined
  /** All writes that met a file, as `<path> <text>`. */
  readonly written: string[] = []
  possible = 8

  constructor(cpus: readonly FakeCpu[] = []) {
    for (const cpu of cpus) this.cpus.set(cpu.number, cpu)
  }

  async read(path: string): Promise<string | undefined> {
    const value = this.#lookUp(path)
    return typeof value === 'string' ? value.trim() : undefined
  }

  async bytes(path: string): Promise<Uint8Array | undefined> {
    const value = this.#lookUp(path)
    return typeof value === 'string' ? new TextEncoder().encode(value) : value
  }

  async exists(path: string): Promise<boolean> {
    return this.#lookUp(path) !== undefined || [...this.fixed.keys()].some((name) => name.startsWith(`${path}/`))
  }

  async list(path: string): Promise<string[]> {
    const names = [...this.fixed.keys()].filter((name) => name.startsWith(`${path}/`))
    return [...new Set(names.map((name) => name.slice(path.length + 1).split('/')[0]!))].sort()
  }

  async write(path: string, text: string): Promise<number> {
    const cpu = this.cpus.get(Number(/\/cpu(\d+)\/online$/.exec(path)?.[1]))
    if (cpu === undefined || cpu.number === 0) {
      const result = await this.onWrite(path, text)
      if (result !== undefined) this.written.push(`${path} ${text}`)
      return result ?? -2
    }
    this.written.push(`cpu${cpu.number} ${text}`)
    const refused = text === '1' ? cpu.refusesOn : cpu.refusesOff
    if (refused === undefined) cpu.online = text === '1'
    return refused ?? 0
  }

  get online(): number[] {
    return [...this.cpus.values()].filter((cpu) => cpu.online).map((cpu) => cpu.number)
  }

  #lookUp(path: string): string | Uint8Array | undefined {
    if (path === `${CPUS}/online`) return this.online.join(',')
    if (path === `${CPUS}/present`) return [...this.cpus.keys()].join(',')
    if (path === `${CPUS}/possible`) return `0-${this.possible - 1}`
    if (path === '/proc/cpuinfo') return this.#cpuinfo()
    const [, number, rest] = /\/cpu(\d+)\/(.*)$/.exec(path) ?? []
    const cpu = this.cpus.get(Number(number))
    if (number === undefined || path.includes('/proc/')) return this.fixed.get(path)
    if (rest === 'online') return cpu === undefined || cpu.number === 0 ? undefined : cpu.online ? '1\n' : '0\n'
    if (rest === 'firmware_node') return cpu?.node && ''
    if (rest === 'firmware_node/path') return cpu?.node?.path
    if (rest === 'firmware_node/uid') return cpu?.node?.uid
    return undefined
  }

  /** The fields as 6.1 prints them, of the CPUs that run. */
  #cpuinfo(): string {
    const block = ({ number, apicId }: FakeCpu) =>
      `processor\t: ${number}\nvendor_id\t: AuthenticAMD\napicid\t\t: ${apicId}\ninitial apicid\t: ${apicId}\nflags\t\t: fpu apic x2apic\n`
    return [...this.cpus.values()]
      .filter((cpu) => cpu.online)
      .map(block)
      .join('\n')
  }
}

/** A MADT: header, then one local APIC entry per pair of UID and APIC id; from 255 on an x2APIC entry. */
export function madt(...pairs: readonly (readonly [uid: number, apicId: number])[]): Uint8Array {
  const entries = pairs.flatMap(([uid, apicId]) => {
    if (apicId < 255) return [0, 8, uid, apicId, 1, 0, 0, 0]
    const words = new Uint32Array([apicId, 1, uid])
    return [9, 16, 0, 0, ...new Uint8Array(words.buffer)]
  })
  // An I/O APIC in front, as a reader has to step over what it does not know.
  return Uint8Array.from([...new Array(44).fill(0), 1, 12, ...new Array(10).fill(0), ...entries])
}

/** Byte code that declares processors by the `Processor` keyword: name and UID. */
export function dsdt(...processors: readonly (readonly [name: string, uid: number])[]): Uint8Array {
  const bytes = processors.flatMap(([name, uid]) => [
    ...[0x5b, 0x83, 0x0b],
    ...new TextEncoder().encode(name),
    ...[uid, 0, 0, 0, 0, 0],
  ])
  return Uint8Array.from([...new Array(36).fill(0), ...bytes, 0x5b])
}

/** Jumps to its next timer as soon as nothing else happens. */
export class JumpingClock implements Clock {
  readonly #clock = new ManualClock()
  #scheduled = false

  now(): number {
    return this.#clock.now()
  }

  setTimer(ms: number, fn: () => void): () => void {
    this.#schedule()
    return this.#clock.setTimer(ms, fn)
  }

  /** Everything here is in memory: by the next turn of the event loop, everything has happened that can happen without time. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    void settle().then(() => {
      this.#scheduled = false
      if (this.#clock.runNext() && this.#clock.pending > 0) this.#schedule()
    })
  }
}
