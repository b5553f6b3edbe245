import type { Bdf } from '@upcall/device-manager'
import { textOf } from '@upcall/foundation/error'
import type { QmpClient, QmpEvent } from '@upcall/qemu'
import type { Drive, PciDevice } from '../devices.js'
import { VmError } from '../error.js'
import { sameWindow, type Window } from '../mmio-space.js'
import type { GuestReport, Machine, Spares } from '../port.js'
import { GuestLife, type RunningQemu } from './guest-life.js'
import { blockName, type Hardware, pciId, type ShimMachine } from './hardware.js'
import { Inventory } from './inventory.js'
import { checkMemory, choosePlace } from './places.js'
import {
  awaitMemory,
  listPci,
  mayBeDone,
  plugCpu,
  pluggedMemory,
  plugPci,
  removeBlockNode,
  requestMemory,
  unplugCpu,
  unplugPci,
} from './plugging.js'
import type { Slots } from './slots.js'

export interface QemuMachineOptions {
  /** What the first QEMU is started with. */
  hardware: Hardware
  /** Boots a guest. Rejects, with nothing left running, if the guest does not come up. */
  launch(hardware: Hardware, signal: AbortSignal): Promise<RunningQemu>
  /** Asks the guest what it has. Rejects if the guest cannot tell. */
  report(): Promise<GuestReport>
  /** The virtio-mmio windows of this machine. Without them the machine has none. */
  slots?: Slots | undefined
  /** How long a guest may take to eject what it has let go of, in milliseconds. Default 5000. */
  ejectTimeoutMs?: number | undefined
  /** How long a guest may take to take or give memory, in milliseconds. Default 30,000. */
  memoryTimeoutMs?: number | undefined
  onLaunch?: ((pid: number) => void) | undefined
  onReset?: (() => void) | undefined
  /** The guest is gone, and why. */
  onExit?: ((why: string) => void) | undefined
}

const EJECT_TIMEOUT_MS = 5_000
const MEMORY_TIMEOUT_MS = 30_000

/**
 * A machine under QEMU, over its monitor. It outlives its guests: the next one is booted with what the last one had. The guest's life is in
 * guest-life.ts, what is plugged in is in inventory.ts; here things are plugged in and out.
 */
export class QemuMachine implements Machine {
  readonly #options: QemuMachineOptions
  readonly #inventory: Inventory
  readonly #life: GuestLife

  constructor(options: QemuMachineOptions) {
    this.#options = options
    this.#inventory = new Inventory(options.hardware)
    const { onLaunch, onReset, onExit } = options
    this.#life = new GuestLife({
      ...{ onLaunch, onReset, onExit },
      launch: (signal) => {
        this.#inventory.plugged = 0
        return options.launch(this.#inventory.hardware, signal)
      },
      probe: (qmp) => this.#probe(qmp),
      onRelaunch: () => this.#inventory.forgetSpares(),
      onDevice: (event) => this.#onDevice(event),
    })
  }

  get guest(): Machine['guest'] {
    return this.#life.guest
  }

  get guestGone(): AbortSignal {
    return this.#life.guestGone
  }

  get resets(): number {
    return this.#life.resets
  }

  get pid(): number | undefined {
    return this.#life.pid
  }

  /** Resolves when this guest's QEMU runs, or rejects with why it does not. */
  get launched(): Promise<void> {
    return this.#life.launched
  }

  get memory(): number {
    return this.#inventory.memory
  }

  get spares(): Spares {
    return this.#inventory.spares
  }

  /** The guest's upcall service has greeted: the guest has booted. */
  serves(): void {
    this.#life.greeted()
  }

  boot(): void {
    if (this.#life.isStopped)
      throw new VmError({ code: 'NOT_READY', op: 'boot', subject: '', what: 'this machine is being stopped' })
    this.#life.boot()
  }

  /** Ends the guest for good. Idempotent. */
  stop(): Promise<void> {
    return this.#life.stop()
  }

  async startCpus(ids: readonly number[]): Promise<void> {
    const started: number[] = []
    try {
      for (const id of ids) {
        // All vCPUs of a microvm are there, and its QEMU cannot even be asked for them.
        if (this.#type !== 'microvm') await this.#plugCpu(id)
        started.push(id)
        this.#inventory.useCpu(id)
      }
    } catch (error) {
      await this.stopCpus(started)
      throw error
    }
  }

  async stopCpus(ids: readonly number[]): Promise<void> {
    const { cpus, spareCpus } = this.#inventory
    for (const id of ids) {
      cpus.delete(id)
      if (this.guest === 'dead' && this.#type !== 'microvm') continue
      spareCpus.add(id)
      const qmp = this.#life.monitor
      if (!this.#ejectsCpus || !qmp) continue
      const { ejectTimeoutMs = EJECT_TIMEOUT_MS } = this.#options
      if (await unplugCpu(qmp, id, ejectTimeoutMs).catch(() => false)) spareCpus.delete(id)
    }
  }

  checkMemory(bytes: number): void {
    checkMemory(this.#options.hardware, bytes)
  }

  hasMemory(bytes: number): boolean {
    return this.#inventory.hasMemory(bytes)
  }

  async resizeMemory(bytes: number): Promise<void> {
    this.checkMemory(bytes)
    const { hardware, memoryTimeoutMs = MEMORY_TIMEOUT_MS } = this.#options
    const inventory = this.#inventory
    const requested = bytes - hardware.memory.boot
    const about = { op: 'vm.resize', subject: `${bytes} bytes of memory` }
    const unfinished = (what: string, cause?: unknown) =>
      new VmError({ ...about, code: 'UNFINISHED', what, next: 'It may go on; look at the memory again later.', cause })
    const qmp = this.#qmp()
    try {
      await requestMemory(qmp, requested)
    } catch (cause) {
      if (!mayBeDone(cause))
        throw new VmError({ ...about, code: 'NOT_READY', what: `${textOf(cause)}, and the guest was not asked`, cause })
      if (this.guest !== 'dead') inventory.requested = requested
      throw unfinished(textOf(cause), cause)
    }
    inventory.requested = requested
    try {
      inventory.plugged = await awaitMemory(qmp, requested, memoryTimeoutMs)
    } catch (cause) {
      throw unfinished(textOf(cause), cause)
    }
    if (this.memory !== bytes) throw unfinished(`after ${memoryTimeoutMs} ms the guest has ${this.memory}`)
  }

  chooseWindow(taken: readonly Window[]): Window | undefined {
    const { slots } = this.#options
    if (!slots)
      throw new VmError({
        ...{ code: 'INVALID', subject: 'drive', what: `a ${this.#type} has no virtio-mmio slots` },
        next: 'Add a PCI disk, or use a microvm.',
      })
    return slots.windows.find((window) => !taken.some((other) => sameWindow(other, window)))
  }

  async attachDrive(drive: Drive): Promise<void> {
    await this.#options.slots?.insert(this.#qmp(), drive)
    this.#inventory.drives.set(drive.id, drive)
  }

  async detachDrive(drive: Drive): Promise<void> {
    this.#inventory.drives.delete(drive.id)
    const qmp = this.#life.monitor
    if (qmp) await this.#options.slots?.eject(qmp, drive).catch(() => {})
  }

  choosePlace(taken: readonly Bdf[], bdf: string | undefined): Bdf | undefined {
    return choosePlace(this.#type, { taken, leaving: this.spares.pci, fixed: this.#inventory.fixed }, bdf)
  }

  async plugPci(device: PciDevice): Promise<void> {
    const { pci, sparePci } = this.#inventory
    if (sparePci.has(device.id))
      throw new VmError({
        ...{ code: 'CONFLICT', subject: device.id, what: 'the guest has not ejected the last device with this id yet' },
        next: 'Choose another id.',
      })
    try {
      await plugPci(this.#qmp(), device, this.#type)
    } catch (error) {
      if (mayBeDone(error)) await this.unplugPci(device)
      throw error
    }
    pci.set(device.id, device)
  }

  async unplugPci(device: PciDevice): Promise<void> {
    const { pci, sparePci } = this.#inventory
    pci.delete(device.id)
    if (this.guest === 'dead') return
    sparePci.set(device.id, device)
    const qmp = this.#life.monitor
    const { ejectTimeoutMs = EJECT_TIMEOUT_MS } = this.#options
    if (qmp && (await unplugPci(qmp, device.id, ejectTimeoutMs))) await this.#ejected(device.id)
  }

  async report(): Promise<GuestReport | undefined> {
    if (this.guest !== 'booted') return undefined
    const report = await this.#options.report().catch(() => undefined)
    if (!report) return undefined
    const { slots } = this.#options
    const pci = report.pci.filter((place) => this.#inventory.isPluggedIn(place))
    return { ...report, pci, mmio: slots ? slots.visible(report.mmio) : [] }
  }

  get #type(): ShimMachine {
    return this.#options.hardware.machine
  }

  /**
   * Only under KVM. Under tcg, QEMU 7.2.22 carries it out and is then killed by its own heap ("double free or corruption", seen each time two
   * vCPUs had gone), and a microvm has no such thing.
   */
  get #ejectsCpus(): boolean {
    const { machine, accel } = this.#options.hardware
    return machine !== 'microvm' && accel === 'kvm'
  }

  async #plugCpu(id: number): Promise<void> {
    try {
      await plugCpu(this.#qmp(), id)
    } catch (error) {
      if (mayBeDone(error)) await this.stopCpus([id])
      throw error
    }
  }

  async #ejected(id: string): Promise<void> {
    const { sparePci } = this.#inventory
    const device = sparePci.get(id)
    sparePci.delete(id)
    const qmp = this.#life.monitor
    if (device?.disk && qmp) await removeBlockNode(qmp, blockName(id))
  }

  #qmp(): QmpClient {
    const qmp = this.#life.monitor
    if (qmp) return qmp
    throw new VmError({ code: 'NOT_READY', subject: 'QEMU', what: 'it does not run', next: 'Reconcile to boot it.' })
  }

  /** What a QEMU that has just been launched has, and what it has to be given. */
  async #probe(qmp: QmpClient): Promise<void> {
    const inventory = this.#inventory
    for (const drive of inventory.drives.values()) await this.#options.slots?.insert(qmp, drive)
    if (this.#type === 'microvm') return
    inventory.plugged = await pluggedMemory(qmp)
    const ours = [...inventory.pci.keys()].map(pciId)
    inventory.fixed = (await listPci(qmp)).filter(({ id }) => !ours.includes(id))
  }

  #onDevice({ event, data }: QmpEvent): void {
    if (event === 'MEMORY_DEVICE_SIZE_CHANGE') this.#inventory.plugged = Number(data.size)
    if (event !== 'DEVICE_DELETED') return
    // Ejected after all, though nothing waited for it any more.
    const cpu = /\/cpu-(\d+)(?:\/|$)/.exec(String(data.path))?.[1]
    if (cpu !== undefined) this.#inventory.spareCpus.delete(Number(cpu))
    const device = this.#inventory.spareCalled(String(data.device ?? ''))
    if (device !== undefined) void this.#ejected(device)
  }
}
