import type { GuestConnection } from '@upcall/server'
import type { Arch } from '@upcall/wire'
import { checkArchOption, checkFunction, checkObject, checkSwitch, checkSwitches, show } from '../../check.js'
import type { GuestBackend } from '../backend.js'
import { allQuirks, type Quirks } from '../quirks.js'
import type { Cpus, Wait } from './cpus.js'
import { ArmCpus } from './cpus-arm.js'
import { X86Cpus } from './cpus-x86.js'
import { everythingAnswers, type SimulatedHardware } from './hardware.js'
import { HotplugLock, type Oops } from './lock.js'
import { type MmioWindow, MmioWindows } from './mmio.js'
import { type PciFunction, PciFunctions } from './pci.js'

/** The kernels for which Kata Containers ships the upcall patches. */
export type KernelVersion = '5.10' | '6.1' | '6.12' | '6.18'

const KERNELS: readonly KernelVersion[] = ['5.10', '6.1', '6.12', '6.18']
/** An APIC id has one byte on the wire. */
const MAX_CPUS = 256
const LOG_LINES = 1000

export interface SimulatedGuestOptions {
  arch: Arch
  /** Default `'6.1'`. 5.10 and 6.1 behave alike, 6.12 and 6.18 too; the two pairs differ in how they handle CPUs. */
  kernel?: KernelVersion | undefined
  /** CPUs online at boot, ids 0 … cpus − 1. Default 1. */
  cpus?: number | undefined
  /** CPUs that the kernel has room for, 1 … 256. Default 256. */
  maxCpus?: number | undefined
  /** Windows that the kernel's command line names. Default none. */
  mmio?: readonly MmioWindow[] | undefined
  /** PCI functions found at boot. Default none. */
  pci?: readonly PciFunction[] | undefined
  /** Default: every vCPU and every PCI function answers. */
  hardware?: SimulatedHardware | undefined
  /** Default: all on. */
  quirks?: { readonly [Q in keyof Quirks]?: boolean | undefined } | undefined
  /** The kernel options for hotplug. What is switched off answers −1. Default: all on. */
  support?: { cpu?: boolean | undefined; mmio?: boolean | undefined; pci?: boolean | undefined } | undefined
  /** Starts in the middle of the boot: nothing is served before `boot()`. Default false. */
  booting?: boolean | undefined
  /** The result of an x86_64 CPU request that names no CPU: whatever stood on the kernel's stack. Default 0xaaaaaaaa, as an i32. */
  uninitialisedResult?: number | undefined
}

/** What is inside the guest at one moment. */
export interface SimulatedGuestState {
  arch: Arch
  kernel: KernelVersion
  booted: boolean
  paused: boolean
  /** A thread of the device manager has oopsed. Its connection will never answer. */
  crashed: boolean
  /** It held the device-hotplug lock. No CPU or MMIO request will be answered, on any connection. */
  lockLost: boolean
  /** Ids: APIC ids on x86_64, CPU numbers on aarch64. `corrupted` run although their bookkeeping is gone. */
  cpus: { online: number[]; present: number[]; corrupted: number[] }
  mmio: MmioWindow[]
  pci: PciFunction[]
  /** What the kernel printed, the last 1,000 lines. */
  log: string[]
}

export interface SimulatedGuest extends GuestBackend {
  readonly quirks: Quirks
  /** A copy, made when it is read. */
  readonly state: SimulatedGuestState
  /** Ends the boot of a guest made with `booting`. */
  boot(): void
  /** Stops all vCPUs. Nothing is answered before `resume()`; what was asked meanwhile is then done, and its late replies arrive. */
  pause(): void
  resume(): void
  /**
   * Takes a CPU down or up from inside the guest, as through sysfs. The next request for it may then answer +1.
   *
   * @throws `RangeError` if there is no such CPU or it is the boot CPU.
   */
  setCpuOnline(id: number, online: boolean): void
}

/**
 * A guest in memory that behaves as the patched kernels do, the dangerous parts included.
 *
 * @throws TypeError or RangeError that names the option, or the quirk, that is wrong.
 */
export function simulatedGuest(options: SimulatedGuestOptions): SimulatedGuest {
  return new Guest(options)
}

class Guest implements SimulatedGuest {
  readonly arch: Arch
  readonly quirks: Quirks
  readonly cpu: GuestBackend['cpu']
  readonly mmio: GuestBackend['mmio']
  readonly pci: GuestBackend['pci']
  readonly #kernel: KernelVersion
  readonly #old: boolean
  readonly #cpus: Cpus
  readonly #windows: MmioWindows
  readonly #functions: PciFunctions
  readonly #lock = new HotplugLock((oops) => this.#oops(oops))
  readonly #log: string[] = []
  #booted: boolean
  #crashed = false
  #pause: { readonly over: Promise<void>; end(): void } | undefined

  constructor(options: SimulatedGuestOptions) {
    checkObject('options', options)
    const { arch, kernel = '6.1', cpus = 1, maxCpus = MAX_CPUS, hardware = everythingAnswers, support = {} } = options
    const { mmio = [], pci = [], uninitialisedResult = 0xaaaaaaaa | 0 } = options
    checkArchOption(arch)
    if (!KERNELS.includes(kernel)) throw new RangeError(`kernel: must be one of ${KERNELS.join(', ')}, got ${show(kernel)}`)
    inRange('maxCpus', maxCpus, 1, MAX_CPUS)
    inRange('cpus', cpus, 1, maxCpus)
    checkObject('hardware', hardware, 'an object with hasCpu and hasPci')
    checkFunction('hardware.hasCpu', hardware.hasCpu)
    checkFunction('hardware.hasPci', hardware.hasPci)
    checkSwitches('support', support, ['cpu', 'mmio', 'pci'])
    checkSwitch('booting', options.booting)
    checkWindows(mmio)
    checkFunctions(pci)
    inRange('uninitialisedResult', uninitialisedResult, -(2 ** 31), 2 ** 31 - 1)
    this.arch = arch
    this.quirks = allQuirks(options.quirks)
    this.#kernel = kernel
    this.#old = kernel === '5.10' || kernel === '6.1'
    this.#booted = options.booting !== true
    const common = { cpus, maxCpus, hardware, quirks: this.quirks }
    this.#cpus = arch === 'aarch64' ? new ArmCpus(common) : new X86Cpus({ ...common, counted: this.#old, uninitialisedResult })
    this.#windows = new MmioWindows(arch, mmio)
    this.#functions = new PciFunctions(hardware, pci)
    if (support.cpu !== false) {
      this.cpu = {
        add: (request, connection) => this.#lock.run(() => this.#cpus.add(request, waitOn(connection))),
        remove: (request) => this.#lock.run(() => this.#cpus.remove(request)),
      }
    }
    if (support.mmio !== false) {
      this.mmio = {
        add: (window) => this.#lock.run(() => this.#windows.add(window)),
        remove: (window) => this.#lock.run(() => this.#windows.remove(window)),
      }
    }
    if (support.pci !== false) {
      this.pci = { add: (slot) => this.#functions.add(slot), remove: (slot) => this.#functions.remove(slot) }
    }
  }

  get state(): SimulatedGuestState {
    const online = this.#cpus.online()
    const present = this.#cpus.present()
    return {
      arch: this.arch,
      kernel: this.#kernel,
      booted: this.#booted,
      paused: this.#pause !== undefined,
      crashed: this.#crashed,
      lockLost: this.#lock.lost,
      cpus: { online, present, corrupted: online.filter((id) => !present.includes(id)) },
      mmio: this.#windows.list(),
      pci: this.#functions.list(),
      log: [...this.#log],
    }
  }

  boot(): void {
    this.#booted = true
  }

  pause(): void {
    if (this.#pause !== undefined) return
    let end!: () => void
    const over = new Promise<void>((resolve) => {
      end = resolve
    })
    this.#pause = { over, end }
  }

  resume(): void {
    this.#pause?.end()
    this.#pause = undefined
  }

  setCpuOnline(id: number, online: boolean): void {
    if (!this.#cpus.setOnline(id, online))
      throw new RangeError(`id: CPU ${id} cannot be switched; online: ${this.#cpus.online().join(', ')}`)
  }

  available(): boolean {
    return this.#booted || !this.quirks.resetWhileBooting
  }

  opened(): void {
    // The service's thread is made while a lock is held under which nobody may sleep.
    if (this.#old) this.#print('BUG: scheduling while atomic: kworker/0:1/0x00000002')
  }

  stopped(): Promise<void> | undefined {
    return this.#pause?.over
  }

  #oops({ message, holdsLock }: Oops): void {
    this.#crashed = true
    this.#print(`BUG: ${message}${holdsLock ? ' (device-hotplug lock held)' : ''}`)
  }

  #print(line: string): void {
    this.#log.push(line)
    if (this.#log.length > LOG_LINES) this.#log.shift()
  }
}

/** The guest works on, whatever becomes of the connection that asked. */
function waitOn(connection: GuestConnection): Wait {
  return (ms) => connection.delay(ms).catch(() => {})
}

function checkWindows(windows: readonly MmioWindow[]): void {
  if (!Array.isArray(windows)) throw new TypeError(`mmio: must be an array of windows, got ${show(windows)}`)
  for (const [i, window] of windows.entries()) {
    checkObject(`mmio[${i}]`, window)
    for (const [name, min] of [
      ['base', 0n],
      ['size', 1n],
    ] as const)
      if (typeof window[name] !== 'bigint' || window[name] < min || window[name] >= 1n << 64n)
        throw new RangeError(`mmio[${i}].${name}: must be a bigint in ${min} … 2^64 − 1, got ${show(window[name])}`)
    inRange(`mmio[${i}].irq`, window.irq, 0, 2 ** 32 - 1)
  }
}

function checkFunctions(functions: readonly PciFunction[]): void {
  if (!Array.isArray(functions)) throw new TypeError(`pci: must be an array of functions, got ${show(functions)}`)
  for (const [i, pci] of functions.entries()) {
    checkObject(`pci[${i}]`, pci)
    inRange(`pci[${i}].bus`, pci.bus, 0, 0xff)
    inRange(`pci[${i}].devfn`, pci.devfn, 0, 0xff)
  }
}

function inRange(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${name}: must be an integer in ${min} … ${max}, got ${show(value)}`)
  }
}
