import { type Bdf, formatBdf } from '@upcall/device-manager'
import { type Guest, QemuError, type QmpClient, type QmpEvent } from '@upcall/qemu'
import { unpackDevfn } from '@upcall/wire'
import type { Drive, PciDevice } from '../devices.js'
import { VmError } from '../error.js'
import { sameWindow, type Window } from '../mmio-space.js'
import { nextFunction, parseAddress, sameFunction } from '../pci-bus.js'
import type { GuestReport, Machine, Spares } from '../port.js'
import { blockName, type Hardware, listPlaces, MEMORY_BLOCK, pciId, portPlaces, type ShimMachine } from './hardware.js'
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

/** A QEMU that runs. */
export type RunningQemu = Pick<Guest, 'pid' | 'qmp' | 'exited' | 'close'>

export interface QemuMachineOptions {
  /** What it is booted with at first. */
  hardware: Hardware
  /** Boots a guest; rejects, with nothing left running, if it does not come up. */
  launch(hardware: Hardware, signal: AbortSignal): Promise<RunningQemu>
  /** Asks the guest what it has; rejects if it cannot tell. */
  report(): Promise<GuestReport>
  /** virtio-mmio windows of this machine; without them it has none. */
  slots?: Slots | undefined
  /** How long a guest may take to eject what it has let go of, in milliseconds. Default 5000. */
  ejectMs?: number | undefined
  /** How long it may take to take or give memory, in milliseconds. Default 30,000. */
  memoryMs?: number | undefined
  onLaunch?: ((pid: number) => void) | undefined
  onReset?: (() => void) | undefined
  /** It is gone, and why. */
  onExit?: ((why: string) => void) | undefined
}

/** A machine under QEMU, over its monitor. It outlives its guests: the next one is booted with what the last one had. */
export class QemuMachine implements Machine {
  readonly #options: QemuMachineOptions
  readonly #cpus: Set<number>
  readonly #spareCpus = new Set<number>()
  readonly #drives = new Map<string, Drive>()
  readonly #pci = new Map<string, PciDevice>()
  readonly #sparePci = new Map<string, PciDevice>()
  /** Functions that the machine is made of: nobody's to plug in or out. */
  #fixed: readonly Bdf[] = []
  /** Bytes over those at boot: what the guest was asked to have, and what it has. */
  #requested: number
  #plugged = 0
  #resets = 0
  #qemu: RunningQemu | undefined
  #gone = new AbortController()
  #dead = false
  #paused = false
  /** It is known what this guest's QEMU has, and it has all of it. */
  #up = false
  /** This guest's upcall service has greeted, be it before QEMU is {@link #up}: the kernel's own service is there before the first process. */
  #serves = false
  #stopping = false
  readonly #stop = new AbortController()
  /** Resolves when this guest's QEMU runs, or rejects with why it does not. */
  launched: Promise<void>

  constructor(options: QemuMachineOptions) {
    this.#options = options
    const { cpus, memory, machine, maxCpus } = options.hardware
    this.#cpus = new Set(cpus)
    // They are all there, and the kernel's command line says how many it starts.
    if (machine === 'microvm') for (let id = 0; id < maxCpus; id++) if (!this.#cpus.has(id)) this.#spareCpus.add(id)
    this.#requested = memory.plugged
    this.launched = this.#launch()
  }

  get guest(): Machine['guest'] {
    if (this.#dead) return 'dead'
    if (this.#paused) return 'paused'
    return this.#up && this.#serves ? 'booted' : 'booting'
  }

  get guestGone(): AbortSignal {
    return this.#gone.signal
  }

  get pid(): number | undefined {
    return this.#qemu?.pid
  }

  get memory(): number {
    return this.#options.hardware.memory.boot + this.#plugged
  }

  get spares(): Spares {
    return {
      cpus: [...this.#spareCpus].sort((a, b) => a - b),
      pci: [...this.#sparePci.values()].map(({ place }) => place),
    }
  }

  get resets(): number {
    return this.#resets
  }

  /** The guest's upcall service has greeted: it has booted. */
  serves(): void {
    this.#serves = true
  }

  async startCpus(ids: readonly number[]): Promise<void> {
    const started: number[] = []
    try {
      for (const id of ids) {
        // A microvm's are all there, and its QEMU cannot even be asked for them.
        if (this.#type !== 'microvm') await this.#plugCpu(id)
        started.push(id)
        this.#spareCpus.delete(id)
        this.#cpus.add(id)
      }
    } catch (error) {
      await this.stopCpus(started)
      throw error
    }
  }

  async stopCpus(ids: readonly number[]): Promise<void> {
    const { ejectMs = 5_000 } = this.#options
    for (const id of ids) {
      this.#cpus.delete(id)
      if (this.#dead && this.#type !== 'microvm') continue
      this.#spareCpus.add(id)
      if (!this.#ejectsCpus) continue
      if (await unplugCpu(this.#qmp(), id, ejectMs).catch(() => false)) this.#spareCpus.delete(id)
    }
  }

  checkMemory(bytes: number): void {
    const { boot, max } = this.#options.hardware.memory
    const invalid = (what: string) => new VmError('INVALID', `desired_ram: ${bytes} is not possible; ${what}`)
    if (this.#type === 'microvm' && bytes !== boot) throw invalid(`a microvm's memory stays at ${boot} bytes`)
    if (bytes < boot || bytes > max) throw invalid(`this VM can have ${boot} to ${max} bytes`)
    if ((bytes - boot) % MEMORY_BLOCK !== 0) throw invalid(`what is over ${boot} comes in blocks of ${MEMORY_BLOCK} bytes`)
  }

  hasMemory(bytes: number): boolean {
    return bytes === this.memory && this.#requested === this.#plugged
  }

  async resizeMemory(bytes: number): Promise<void> {
    this.checkMemory(bytes)
    const { hardware, memoryMs = 30_000 } = this.#options
    const requested = bytes - hardware.memory.boot
    const subject = `resize to ${bytes} bytes of memory`
    const unfinished = (why: string, cause?: unknown) =>
      new VmError('UNFINISHED', `${subject}: ${why}; it may go on, GET /vm tells`, { cause })
    const qmp = this.#qmp()
    try {
      await requestMemory(qmp, requested)
    } catch (cause) {
      const { summary } = cause as QemuError
      if (!mayBeDone(cause)) throw new VmError('NOT_READY', `${subject}: ${summary}; the guest was not asked`, { cause })
      if (!this.#dead) this.#requested = requested
      throw unfinished(summary, cause)
    }
    this.#requested = requested
    try {
      this.#plugged = await awaitMemory(qmp, requested, memoryMs)
    } catch (cause) {
      throw unfinished((cause as QemuError).summary, cause)
    }
    if (this.memory !== bytes) throw unfinished(`after ${memoryMs} ms the guest has ${this.memory}`)
  }

  chooseWindow(taken: readonly Window[]): Window | undefined {
    const { slots } = this.#options
    if (!slots)
      throw new VmError(
        'INVALID',
        `drives: a ${this.#type} has no virtio-mmio slots; use PUT /pci-devices/{id} with path_on_host, or --machine microvm`,
      )
    return slots.windows.find((window) => !taken.some((other) => sameWindow(other, window)))
  }

  async attachDrive(drive: Drive): Promise<void> {
    await this.#options.slots?.insert(this.#qmp(), drive)
    this.#drives.set(drive.id, drive)
  }

  async detachDrive(drive: Drive): Promise<void> {
    this.#drives.delete(drive.id)
    if (this.#dead) return
    await this.#options.slots?.eject(this.#qmp(), drive).catch(() => {})
  }

  choosePlace(taken: readonly Bdf[], bdf: string | undefined): Bdf | undefined {
    if (this.#type === 'microvm')
      throw new VmError('INVALID', 'pci-devices: a microvm has no PCI bus; use PUT /drives/{id}, or --machine q35 or pc')
    const leaving = this.spares.pci
    const isFree = (place: Bdf) => ![...taken, ...leaving].some((other) => sameFunction(other, place))
    const place = bdf === undefined ? undefined : parseAddress(bdf)
    if (place && leaving.some((other) => sameFunction(other, place)))
      throw new VmError('CONFLICT', `bdf: at ${formatBdf(place)} is a device that the guest has not ejected yet; choose another`)
    if (this.#type === 'q35') {
      const places = portPlaces()
      if (!place) return places.find(isFree)
      if (places.some((other) => sameFunction(other, place))) return place
      throw new VmError(
        'INVALID',
        `bdf: a q35 takes devices behind its ports: ${listPlaces(places)}; ${formatBdf(place)} is not one`,
      )
    }
    if (!place) return nextFunction([...taken, ...leaving, ...this.#fixed])
    const { slot, function: fn } = unpackDevfn(place.devfn)
    if (place.bus !== 0 || fn !== 0)
      throw new VmError('INVALID', `bdf: ${formatBdf(place)} is not possible; this machine takes devices at 00:01.0 to 00:1f.0`)
    if (this.#fixed.some((other) => other.bus === 0 && unpackDevfn(other.devfn).slot === slot))
      throw new VmError('CONFLICT', `bdf: ${formatBdf(place)} is the machine's own; choose another, or none`)
    return place
  }

  async plugPci(device: PciDevice): Promise<void> {
    if (this.#sparePci.has(device.id))
      throw new VmError('CONFLICT', `id: the guest has not ejected the last ${device.id} yet; choose another id`)
    try {
      await plugPci(this.#qmp(), device, this.#type)
    } catch (error) {
      if (mayBeDone(error)) await this.unplugPci(device)
      throw error
    }
    this.#pci.set(device.id, device)
  }

  async unplugPci(device: PciDevice): Promise<void> {
    const { ejectMs = 5_000 } = this.#options
    this.#pci.delete(device.id)
    if (this.#dead) return
    this.#sparePci.set(device.id, device)
    if (await unplugPci(this.#qmp(), device.id, ejectMs)) await this.#ejected(device.id)
  }

  async report(): Promise<GuestReport | undefined> {
    if (this.guest !== 'booted') return undefined
    const report = await this.#options.report().catch(() => undefined)
    if (!report) return undefined
    const isOurs = (place: Bdf) => !this.#fixed.some((other) => sameFunction(other, place))
    const { slots } = this.#options
    return { ...report, pci: report.pci.filter(isOurs), mmio: slots ? slots.visible(report.mmio) : [] }
  }

  boot(): void {
    if (this.#stopping) throw new VmError('NOT_READY', 'boot: this machine is being stopped')
    this.#gone = new AbortController()
    this.#dead = false
    this.#paused = false
    this.#up = false
    this.#serves = false
    this.#sparePci.clear()
    if (this.#type !== 'microvm') this.#spareCpus.clear()
    // It is told of its windows once it serves.
    this.#resets++
    this.launched = this.#launch()
  }

  /** Ends the guest for good. */
  async stop(): Promise<void> {
    this.#stopping = true
    // One that runs may write out what it holds. One that is being launched has no owner yet.
    await this.#qemu?.close()
    this.#stop.abort(new Error('the machine is stopped'))
    await this.launched.catch(() => {})
    await this.#qemu?.close()
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

  #qmp(): QmpClient {
    if (this.#qemu && !this.#dead) return this.#qemu.qmp
    throw new VmError('NOT_READY', 'the machine does not run; POST /vm/reconcile boots it')
  }

  #launch(): Promise<void> {
    const launched = this.#bringUp()
    launched.catch((error: Error) => {
      // Unless its successor is being launched already.
      if (this.launched === launched) this.#die(error.message)
    })
    return launched
  }

  async #bringUp(): Promise<void> {
    const { hardware, launch, onLaunch } = this.#options
    const { boot, max } = hardware.memory
    const now: Hardware = {
      ...hardware,
      cpus: [...this.#cpus].sort((a, b) => a - b),
      memory: { boot, max, plugged: this.#requested },
      pci: [...this.#pci.values()],
    }
    const last = this.#qemu
    this.#qemu = undefined
    this.#plugged = 0
    // It may still be on its way out, and holds its files until it is.
    await last?.close()
    const qemu = await launch(now, this.#stop.signal)
    this.#qemu = qemu
    const isCurrent = () => this.#qemu === qemu && !this.#dead
    qemu.qmp.on('event', (event) => {
      if (isCurrent()) this.#follow(event)
    })
    void qemu.exited.then(({ code, signal, output }) => {
      const how = signal ? `was ended by ${signal}` : `ended with status ${code}`
      if (isCurrent()) this.#die(`QEMU ${how}${output && `: ${output}`}`)
    })
    onLaunch?.(qemu.pid)
    try {
      await this.#takeStock(qemu.qmp)
    } catch (error) {
      // If QEMU itself is the reason, its end says more.
      if (!(error instanceof QemuError && error.code === 'QMP_CLOSED')) this.#die((error as Error).message)
      await qemu.close()
      throw error
    }
    this.#up = true
  }

  /** What a QEMU that has just been launched has, and what it has to be given. */
  async #takeStock(qmp: QmpClient): Promise<void> {
    const { running } = await qmp.execute<{ running?: boolean }>('query-status')
    this.#paused = running === false
    for (const drive of this.#drives.values()) await this.#options.slots?.insert(qmp, drive)
    if (this.#type === 'microvm') return
    this.#plugged = await pluggedMemory(qmp)
    const ours = [...this.#pci.keys()].map(pciId)
    this.#fixed = (await listPci(qmp)).filter(({ id }) => !ours.includes(id))
  }

  #follow({ event, data }: QmpEvent): void {
    if (event === 'STOP') this.#paused = true
    else if (event === 'RESUME') this.#paused = false
    else if (event === 'MEMORY_DEVICE_SIZE_CHANGE') this.#plugged = Number(data.size)
    else if (event === 'DEVICE_DELETED') this.#onDeleted(String(data.device ?? ''), String(data.path))
    else if (event === 'RESET') {
      // The same hardware, a fresh guest. What it was asked before it does not know.
      this.#serves = false
      this.#resets++
      this.#gone.abort(new Error('the guest was reset'))
      this.#gone = new AbortController()
      this.#options.onReset?.()
    }
  }

  /** Ejected after all, though nobody waited for it any more. */
  #onDeleted(id: string, path: string): void {
    const cpu = /\/cpu-(\d+)(?:\/|$)/.exec(path)?.[1]
    if (cpu !== undefined) this.#spareCpus.delete(Number(cpu))
    const device = [...this.#sparePci.keys()].find((each) => pciId(each) === id)
    if (device !== undefined) void this.#ejected(device)
  }

  async #ejected(id: string): Promise<void> {
    const device = this.#sparePci.get(id)
    this.#sparePci.delete(id)
    if (device?.disk && this.#qemu) await removeBlockNode(this.#qemu.qmp, blockName(id))
  }

  #die(why: string): void {
    if (this.#dead) return
    this.#dead = true
    this.#gone.abort(new Error(why))
    if (!this.#stopping) this.#options.onExit?.(why)
  }
}
