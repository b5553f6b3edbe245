import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { Bdf } from '@upcall/device-manager'
import type { KernelVersion } from '@upcall/device-manager/guest'
import type { Arch } from '@upcall/wire'
import type { Drive, PciDevice } from '../devices.js'
import { VmError } from '../error.js'
import { nextWindow, type Window } from '../mmio-space.js'
import { nextFunction, readBdf, sameFunction } from '../pci-bus.js'
import type { GuestReport, Machine, Spares } from '../port.js'
import type { Fault } from './faults.js'
import { GuestProcess } from './guest-process.js'
import type { Hardware } from './messages.js'

export interface SimulatedMachineOptions {
  arch: Arch
  kernel: KernelVersion
  /** vCPUs that run at first. */
  cpus: number
  maxCpus: number
  /** Bytes. */
  memory: number
  bootMs: number
  /** `plugged`: the guest finds what was started and plugged in. `all`: it finds every CPU that fits, and all of PCI bus 0. */
  hardware: 'plugged' | 'all'
  /** A directory of this machine's own, for the guests' sockets. */
  directory: string
  /** The program of the guest's process. */
  guestEntry: URL
  onExit?: ((how: string, stderr: string) => void) | undefined
  onBoot?: (() => void) | undefined
}

/** Hardware that exists as a list, and a guest process that is told what is on it. */
export class SimulatedMachine implements Machine {
  /** What is taken out of simulated hardware is out. */
  readonly spares: Spares = { cpus: [], pci: [] }
  readonly resets = 0
  readonly #options: SimulatedMachineOptions
  readonly #cpus = new Set<number>()
  readonly #drives = new Map<string, Drive>()
  #pci: Bdf[] = []
  #guest: GuestProcess
  #generation = 0
  #fault: Fault | undefined
  #stopped = false

  constructor(options: SimulatedMachineOptions) {
    this.#options = options
    for (let id = 0; id < options.cpus; id++) this.#cpus.add(id)
    this.#guest = this.#start()
  }

  get guest(): 'booting' | 'booted' | 'dead' {
    return this.#guest.state
  }

  get guestGone(): AbortSignal {
    return this.#guest.gone
  }

  get memory(): number {
    return this.#options.memory
  }

  get pid(): number | undefined {
    return this.#guest.pid
  }

  /** Resolves when the present guest has booted, or died. */
  async booted(): Promise<void> {
    await Promise.race([this.#guest.booting, this.#guest.exited])
  }

  async startCpus(ids: readonly number[]): Promise<void> {
    for (const id of ids) this.#cpus.add(id)
    try {
      await this.#tell()
    } catch (error) {
      for (const id of ids) this.#cpus.delete(id)
      throw error
    }
  }

  async stopCpus(ids: readonly number[]): Promise<void> {
    for (const id of ids) this.#cpus.delete(id)
    await this.#mention()
  }

  checkMemory(bytes: number): void {
    const { memory } = this
    if (bytes !== memory)
      throw new VmError({
        ...{ code: 'INVALID', op: 'vm.resize', subject: `${bytes} bytes of memory` },
        what: `the memory of a simulated guest stays at ${memory} bytes`,
      })
  }

  hasMemory(bytes: number): boolean {
    return bytes === this.memory
  }

  async resizeMemory(bytes: number): Promise<void> {
    this.checkMemory(bytes)
  }

  chooseWindow(taken: readonly Window[]): Window | undefined {
    return nextWindow(this.#options.arch, taken)
  }

  async attachDrive(drive: Drive): Promise<void> {
    this.#drives.set(drive.id, drive)
  }

  async detachDrive({ id }: Drive): Promise<void> {
    this.#drives.delete(id)
  }

  choosePlace(taken: readonly Bdf[], bdf: string | undefined): Bdf | undefined {
    return bdf === undefined ? nextFunction(taken) : readBdf(bdf)
  }

  async plugPci({ place }: PciDevice): Promise<void> {
    const before = this.#pci
    this.#pci = [...before, place]
    try {
      await this.#tell()
    } catch (error) {
      this.#pci = before
      throw error
    }
  }

  async unplugPci({ place }: PciDevice): Promise<void> {
    this.#pci = this.#pci.filter((other) => !sameFunction(other, place))
    await this.#mention()
  }

  async report(): Promise<GuestReport | undefined> {
    return this.#guest.ask({ type: 'report' }).catch(() => undefined)
  }

  boot(): void {
    if (this.#stopped) throw new VmError({ code: 'NOT_READY', op: 'boot', subject: '', what: 'this machine is being stopped' })
    this.#guest = this.#start()
  }

  /** The guest's end of its upcall port. */
  connect(signal: AbortSignal): Promise<Duplex> {
    return this.#guest.connect(signal)
  }

  /** Stops the guest's vCPUs, or lets them run on. */
  async pause(paused: boolean): Promise<void> {
    await this.#guest.ask({ type: 'pause', paused })
  }

  /** Breaks this guest and those that are booted after it, until told otherwise. */
  async break(fault: Fault | undefined): Promise<void> {
    this.#fault = fault
    if (this.guest !== 'dead') await this.#guest.ask({ type: 'fault', fault })
  }

  /** Ends the guest as a crash would. */
  kill(): Promise<void> {
    return this.#guest.kill()
  }

  /** Ends the guest for good. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#guest.stop()
  }

  #start(): GuestProcess {
    const { arch, kernel, maxCpus, bootMs, directory, guestEntry, onExit, onBoot } = this.#options
    // A path of its own for each, so that nothing of the last one is in its way.
    const socket = join(directory, `guest-${++this.#generation}.sock`)
    const guest = new GuestProcess(guestEntry, {
      arch,
      kernel,
      socket,
      cpus: this.#cpus.size,
      maxCpus,
      bootMs,
      hardware: this.#hardware(),
      mmio: [...this.#drives.values()].map(({ window }) => window),
      pci: this.#pci,
      fault: this.#fault,
    })
    void guest.booting.then(() => onBoot?.())
    void guest.exited.then((how) => {
      rmSync(socket, { force: true })
      if (!this.#stopped) onExit?.(how, guest.stderr)
    })
    return guest
  }

  /** The guest's process has to know before the guest is asked. */
  async #tell(): Promise<void> {
    await this.#guest.ask({ type: 'hardware', hardware: this.#hardware() })
  }

  /** What is gone is gone, whether the guest's process hears of it now, with the next change, or at the next boot. */
  async #mention(): Promise<void> {
    await this.#tell().catch(() => {})
  }

  #hardware(): Hardware {
    return this.#options.hardware === 'all' ? 'all' : { cpus: [...this.#cpus], pci: this.#pci }
  }
}
