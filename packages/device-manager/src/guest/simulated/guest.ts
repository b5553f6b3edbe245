import { checkFunction, checkNames, checkObject, checkSwitch, integer, wrongType, wrongValue } from '@upcall/foundation/check'
import type { GuestConnection } from '@upcall/server'
import type { Arch } from '@upcall/wire'
import { checkArch } from '../../arch.js'
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
  /** Default `'6.1'`. 5.10 and 6.1 behave alike, and so do 6.12 and 6.18. The two pairs differ in how they handle CPUs. */
  kernel?: KernelVersion | undefined
  /** CPUs online at boot, ids 0 … cpus − 1. Default 1. */
  cpus?: number | undefined
  /** How many CPUs the kernel has room for, 1 … 256. Default 256. */
  maxCpus?: number | undefined
  /** The windows on the kernel's command line. Default none. */
  mmio?: readonly MmioWindow[] | undefined
  /** The PCI functions that the kernel finds at boot. Default none. */
  pci?: readonly PciFunction[] | undefined
  /** Default: every vCPU and every PCI function answers. */
  hardware?: SimulatedHardware | undefined
  /** Default: all on. */
  quirks?: { readonly [Q in keyof Quirks]?: boolean | undefined } | undefined
  /** The kernel's options for hotplug. A request of a kind that is off gets −1. Default: all on. */
  support?: { cpu?: boolean | undefined; mmio?: boolean | undefined; pci?: boolean | undefined } | undefined
  /** The guest starts while it boots, and serves nothing before `boot()`. Default false. */
  booting?: boolean | undefined
  /** The result of an x86_64 CPU request that names no CPU: the kernel answers what was on its stack. Default 0xaaaaaaaa, as an i32. */
  uninitialisedResult?: number | undefined
}

/** The inside of the guest at one moment. */
export interface SimulatedGuestState {
  arch: Arch
  kernel: KernelVersion
  booted: boolean
  paused: boolean
  /** A thread of the device manager has crashed. Its connection never answers. */
  crashed: boolean
  /** That thread held the device-hotplug lock. No CPU or MMIO request gets an answer any more, on any connection. */
  lockLost: boolean
  /** APIC ids on x86_64, CPU numbers on aarch64. The `corrupted` CPUs run although the kernel has lost track of them. */
  cpus: { online: number[]; present: number[]; corrupted: number[] }
  mmio: MmioWindow[]
  pci: PciFunction[]
  /** The last 1,000 lines that the kernel printed. */
  log: string[]
}

export interface SimulatedGuest extends GuestBackend {
  readonly quirks: Quirks
  /** A copy of the state at the moment of reading. */
  readonly state: SimulatedGuestState
  /** Ends the boot of a guest that was made with `booting`. */
  boot(): void
  /** Stops all vCPUs. The guest answers nothing before `resume()`. It then does what was asked meanwhile, and the late replies arrive. */
  pause(): void
  resume(): void
  /**
   * Takes a CPU offline or online from inside the guest, as through sysfs. The next request for it may then get +1.
   *
   * @throws `RangeError` if there is no such CPU or it is the boot CPU.
   */
  setCpuOnline(id: number, online: boolean): void
}

/**
 * A guest in memory that behaves as the patched kernels do, including the dangerous parts. Pure: it needs no module of Node.
 *
 * @throws TypeError or RangeError that names the wrong option or quirk.
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
    checkArch(arch)
    if (!KERNELS.includes(kernel)) wrongValue('kernel', `one of ${KERNELS.join(', ')}`, kernel)
    integer('maxCpus', maxCpus, { min: 1, max: MAX_CPUS })
    integer('cpus', cpus, { min: 1, max: maxCpus })
    checkObject('hardware', hardware, 'an object with hasCpu and hasPci')
    checkFunction('hardware.hasCpu', hardware.hasCpu)
    checkFunction('hardware.hasPci', hardware.hasPci)
    checkNames('support', support, ['cpu', 'mmio', 'pci'])
    for (const [name, on] of Object.entries(support)) checkSwitch(`support.${name}`, on)
    checkSwitch('booting', options.booting)
    checkWindows(mmio)
    checkFunctions(pci)
    integer('uninitialisedResult', uninitialisedResult, { min: -(2 ** 31), max: 2 ** 31 - 1 })
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
      wrongValue('id', `a CPU other than the boot CPU; ${this.#cpus.online().join(', ')} are online`, id)
  }

  available(): boolean {
    return this.#booted || !this.quirks.resetWhileBooting
  }

  opened(): void {
    // The kernel makes the service's thread while it holds a lock under which sleeping is forbidden.
    if (this.#old) this.#print('BUG: scheduling while atomic: kworker/0:1/0x00000002')
  }

  stopped(): Promise<void> | undefined {
    return this.#pause?.over
  }

  // prints on the guest's console
  #oops({ message, holdsLock }: Oops): void {
    this.#crashed = true
    this.#print(`BUG: ${message}${holdsLock ? ' (device-hotplug lock held)' : ''}`)
  }

  #print(line: string): void {
    this.#log.push(line)
    if (this.#log.length > LOG_LINES) this.#log.shift()
  }
}

/** The guest goes on with its work when the connection that asked is gone. */
function waitOn(connection: GuestConnection): Wait {
  return (ms) => connection.delay(ms).catch(() => {})
}

function checkWindows(windows: readonly MmioWindow[]): void {
  if (!Array.isArray(windows)) wrongType('mmio', 'an array of windows', windows)
  for (const [i, window] of windows.entries()) {
    checkObject(`mmio[${i}]`, window)
    const { base, size, irq } = window as MmioWindow
    u64(`mmio[${i}].base`, base, 0n)
    u64(`mmio[${i}].size`, size, 1n)
    integer(`mmio[${i}].irq`, irq, { max: 2 ** 32 - 1 })
  }
}

function checkFunctions(functions: readonly PciFunction[]): void {
  if (!Array.isArray(functions)) wrongType('pci', 'an array of functions', functions)
  for (const [i, pci] of functions.entries()) {
    checkObject(`pci[${i}]`, pci)
    const { bus, devfn } = pci as PciFunction
    integer(`pci[${i}].bus`, bus, { max: 0xff })
    integer(`pci[${i}].devfn`, devfn, { max: 0xff })
  }
}

function u64(name: string, value: bigint, min: bigint): void {
  if (typeof value !== 'bigint' || value < min || value >= 1n << 64n) wrongValue(name, `a bigint from ${min} to 2^64 − 1`, value)
}
