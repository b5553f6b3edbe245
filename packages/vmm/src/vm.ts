import { type DeviceManager, formatBdf, isGuestError } from '@upcall/device-manager'
import { duration, integer, wrongValue } from '@upcall/foundation/check'
import { textOf } from '@upcall/foundation/error'
import { traceOf } from '@upcall/foundation/trace'
import type { Arch } from '@upcall/wire'
import { type About, type Arrival, bringIn, bringOut, type Context, type Departure } from './change.js'
import { CpuResizer, type Resized } from './cpus.js'
import type { DeviceStatus, Disk, Drive, PciDevice } from './devices.js'
import { isVmError, VmError } from './error.js'
import { bootInventory, type Inventory, presentCpus, unknownCpus } from './inventory.js'
import { sameWindow, type Window } from './mmio-space.js'
import { sameFunction } from './pci-bus.js'
import type { Machine } from './port.js'
import { type Reconciled, Reconciler } from './reconciler.js'
import { readSnapshot, takeSnapshot, type VmSnapshot } from './snapshot.js'
import { beliefOf, type VmState, type VmView } from './view.js'

const trace = traceOf('vmm')

/** What a VM is made with, be it new or taken up again. */
export interface VmRestoreOptions {
  /** The hardware. */
  machine: Machine
  /** The client of the guest's device manager. */
  manager: DeviceManager<Arch>
  /**
   * Saves what the VM knows. It is called before each step, which waits for it and is not taken if it rejects, and again after it. With
   * the last value, `Vm.restore` and `reconcile` find out how far the step got.
   */
  save?: ((snapshot: VmSnapshot) => void | Promise<void>) | undefined
  /** How long a change waits for a connection that is being made again, in milliseconds. Default 500. */
  readyTimeoutMs?: number | undefined
  /** How long a reconcile waits for the guest to be ready and to end what it is at, in milliseconds. Default 30,000. */
  reconcileTimeoutMs?: number | undefined
}

export interface VmOptions extends VmRestoreOptions {
  /** vCPUs that run at boot. */
  cpus: number
  /** The most vCPUs that the VM can have. */
  maxCpus: number
}

export interface ChangeOptions {
  /** Gives the change up. What the guest was asked by then is `unknown` until a reconcile; what it was not asked is taken back. */
  signal?: AbortSignal | undefined
}

/**
 * The VMM's side of a VM: what it believes, its hardware and the upcall, in the order that survives a failure of either. Plugging is
 * hardware first, then the guest; unplugging the other way round. When the guest refuses, or was not asked, everything is as it was
 * before; when it is unknown what the guest did, the hardware stays, and so does the status `unknown` until {@link Vm.reconcile}.
 * One change at a time.
 */
export class Vm {
  readonly arch: Arch
  readonly maxCpus: number
  readonly #machine: Machine
  readonly #manager: DeviceManager<Arch>
  readonly #inventory: Inventory
  readonly #options: VmRestoreOptions
  readonly #readyTimeoutMs: number
  readonly #cpus: CpuResizer
  readonly #reconciler: Reconciler
  /** Windows that the guest has from elsewhere, as its refusals tell: not tried again before a reconcile. */
  #foreign: Window[] = []
  #changing: string | undefined

  /**
   * A VM whose guest boots, or has just booted.
   *
   * @param inventory - What it has. Default: `cpus` vCPUs and no device.
   * @throws TypeError or RangeError that names the option that is wrong.
   */
  constructor(options: VmOptions, inventory?: Inventory) {
    this.#options = options
    this.#machine = options.machine
    this.#manager = options.manager
    this.arch = options.manager.arch
    this.maxCpus = integer('maxCpus', options.maxCpus, { min: 1, max: 255 })
    integer('cpus', options.cpus, { min: 1, max: this.maxCpus })
    // `cpus` is a number of vCPUs from here on.
    inventory ??= bootInventory(options.cpus)
    this.#inventory = inventory
    this.#readyTimeoutMs = duration('readyTimeoutMs', options.readyTimeoutMs, 500)
    const { machine, manager, reconcileTimeoutMs: timeoutMs } = options
    this.#cpus = new CpuResizer({ machine, manager, inventory, begin: (about) => this.#begin(about, inventory.cpus) })
    this.#reconciler = new Reconciler({ machine, manager, inventory, timeoutMs, save: () => this.#noted() })
  }

  /**
   * Takes a VM up again, as another controller left it. Reconcile next: it finds out what has become of what was under way.
   *
   * @param snapshot - What `snapshot()` returned, or `JSON.parse` of it.
   * @throws TypeError or RangeError that names the field of the snapshot that is wrong.
   */
  static restore(snapshot: unknown, options: VmRestoreOptions): Vm {
    const { arch, maxCpus, inventory } = readSnapshot(snapshot)
    if (arch !== options.manager.arch) wrongValue('snapshot.arch', `"${options.manager.arch}", as the manager has it`, arch)
    const vm = new Vm({ ...options, maxCpus, cpus: 1 }, inventory)
    vm.#reconciler.announceAll()
    return vm
  }

  get state(): VmState {
    const { guest } = this.#machine
    if (guest !== 'booted') return guest
    return isConnected(this.#manager) ? 'running' : 'reconnecting'
  }

  /** What the VM knows now, as a plain value that JSON can hold. What is under way is `unknown` in it. See {@link Vm.restore}. */
  snapshot(): VmSnapshot {
    return takeSnapshot({ arch: this.arch, maxCpus: this.maxCpus, inventory: this.#inventory })
  }

  /** What the VMM believes, beside what the guest says. */
  async view(): Promise<VmView> {
    const guest = await this.#machine.report()
    return { state: this.state, arch: this.arch, believed: beliefOf(this.#inventory, this.#machine, this.maxCpus), guest }
  }

  /**
   * Brings the number of vCPUs to `target`: grows by the lowest free ids, shrinks from the top. If it fails in the middle, what was done
   * before is taken back if the guest can be asked.
   */
  resize(target: number, options?: ChangeOptions): Promise<Resized> {
    const about = { op: 'vm.resize', subject: `${target} vCPUs` }
    return this.#alone(about, () => this.#resizeCpus(about, target, options))
  }

  /** @throws VmError `INVALID` unless the VM can have so many bytes. */
  checkMemory(bytes: number): void {
    this.#machine.checkMemory(bytes)
  }

  /** Brings the guest's memory to so many bytes. */
  resizeMemory(bytes: number, options?: ChangeOptions): Promise<void> {
    const about = { op: 'vm.resize', subject: `${bytes} bytes of memory` }
    return this.#alone(about, () => this.#resizeMemory(about, bytes, options))
  }

  /** Both as one change, vCPUs first. They are taken back if the memory stays as it is, and stay if that is unknown. */
  resizeBoth(target: number, bytes: number, options?: ChangeOptions): Promise<Resized> {
    const about = { op: 'vm.resize', subject: `${target} vCPUs and ${bytes} bytes of memory` }
    return this.#alone(about, async () => {
      this.checkMemory(bytes)
      const { length: before } = presentCpus(this.#inventory)
      const resized = await this.#resizeCpus(about, target, options)
      try {
        await this.#resizeMemory(about, bytes, options)
      } catch (error) {
        if (target === before) throw error
        if (!isVmError(error) || error.code !== 'UNFINISHED') throw await this.#cpus.takeBack(about, before, error)
        const { code, what, next } = error
        throw new VmError({ ...about, code, what: `${what}; the vCPUs are ${target} now`, next, cause: error })
      }
      return resized
    })
  }

  /** Adds a virtio-mmio block device. */
  addDrive(id: string, { pathOnHost, isReadOnly }: Disk, options?: ChangeOptions): Promise<Readonly<Drive>> {
    const about = { op: 'drive.add', subject: id }
    const { drives } = this.#inventory
    return this.#add(about, drives, options, () => {
      const taken = [...[...drives.values()].map(({ window }) => window), ...this.#foreign]
      const window = this.#machine.chooseWindow(taken)
      if (!window)
        throw new VmError({ ...about, code: 'EXHAUSTED', what: 'no window or line is free', next: 'Remove a drive first.' })
      const entry: Drive = { id, window, pathOnHost, isReadOnly, status: 'adding' }
      return {
        entry,
        plug: () => this.#machine.attachDrive(entry),
        announce: async (signal) => {
          try {
            await this.#manager.addMmio(window, { signal })
          } catch (error) {
            if (isGuestError(error) && error.errnoName === 'EEXIST') this.#foreign.push(window)
            throw error
          }
        },
        unplug: () => this.#machine.detachDrive(entry),
      }
    })
  }

  /** Removes it in two phases: the guest lets go, only then the device model is torn down. */
  removeDrive(id: string, options?: ChangeOptions): Promise<void> {
    return this.#remove({ op: 'drive.remove', subject: id }, this.#inventory.drives, options, (entry) => ({
      entry,
      release: (signal) => this.#manager.removeMmio(entry.window, { signal }),
      // The guest refuses a window of its command line or firmware in the same way, and uses it.
      isGone: ({ errnoName }, guest) =>
        errnoName === 'ENODEV' && guest !== undefined && !guest.mmio.some((other) => sameWindow(other, entry.window)),
      unplug: () => this.#machine.detachDrive(entry),
    }))
  }

  /** Adds a PCI device, at `bdf` or in a free place: with `disk` a disk, else some device without a file. */
  addPci(
    id: string,
    { bdf, disk, ...options }: ChangeOptions & { bdf?: string | undefined; disk?: Disk | undefined } = {},
  ): Promise<Readonly<PciDevice>> {
    const about = { op: 'pci.add', subject: id }
    const { pci } = this.#inventory
    return this.#add(about, pci, options, () => {
      const taken = [...pci.values()].map(({ place }) => place)
      const place = this.#machine.choosePlace(taken, bdf)
      if (!place) throw new VmError({ ...about, code: 'EXHAUSTED', what: 'no slot is free', next: 'Remove a device first.' })
      if (taken.some((other) => sameFunction(other, place)))
        throw conflict(about, `${formatBdf(place)} is taken`, 'Choose another address, or none.')
      const entry: PciDevice = { id, place, ...(disk && { disk }), status: 'adding' }
      return {
        entry,
        plug: () => this.#machine.plugPci(entry),
        announce: (signal) => this.#manager.addPci(place, { signal }),
        unplug: () => this.#machine.unplugPci(entry),
      }
    })
  }

  removePci(id: string, options?: ChangeOptions): Promise<void> {
    return this.#remove({ op: 'pci.remove', subject: id }, this.#inventory.pci, options, (entry) => ({
      entry,
      release: (signal) => this.#manager.removePci(entry.place, { signal }),
      isGone: ({ errnoName }, guest) => errnoName === 'ENODEV' && !guest?.pci.some((other) => sameFunction(other, entry.place)),
      unplug: () => this.#machine.unplugPci(entry),
    }))
  }

  /** Settles what is unknown, and replaces a dead guest. @throws as {@link Reconciler.run} does. */
  reconcile(options?: ChangeOptions): Promise<Reconciled> {
    return this.#alone({ op: 'reconcile', subject: '' }, () => {
      this.#foreign = []
      return this.#reconciler.run(options)
    })
  }

  async #resizeCpus(about: About, target: number, options?: ChangeOptions): Promise<Resized> {
    const { maxCpus } = this
    if (!Number.isInteger(target) || target < 1 || target > maxCpus)
      throw new VmError({ ...about, code: 'INVALID', what: `this VM can have 1 to ${maxCpus} vCPUs` })
    const unknown = unknownCpus(this.#inventory)
    if (unknown.length > 0) throw unsettled(about, `vCPU ${unknown.join(', ')}`)
    const present = presentCpus(this.#inventory)
    if (target === present.length) return { added: [], removed: [], present }
    return this.#cpus.resize(about, target, await this.#begin(about, this.#inventory.cpus, options))
  }

  async #resizeMemory(about: About, bytes: number, options?: ChangeOptions): Promise<void> {
    this.checkMemory(bytes)
    if (this.#machine.hasMemory(bytes)) return
    await this.#ready(about, options)
    try {
      await this.#machine.resizeMemory(bytes)
    } catch (cause) {
      if (isVmError(cause)) throw cause
      throw new VmError({ ...about, code: 'NOT_READY', what: `the memory could not be resized: ${textOf(cause)}`, cause })
    }
  }

  #add<E extends Entry>(
    about: About,
    all: Map<string, E>,
    options: ChangeOptions | undefined,
    plan: () => Arrival<E>,
  ): Promise<Readonly<E>> {
    return this.#alone(about, async () => {
      if (all.has(about.subject)) throw conflict(about, 'the id is taken', 'Choose another id, or remove that device first.')
      const arrival = plan()
      await bringIn(await this.#begin(about, all, options), arrival)
      return arrival.entry
    })
  }

  #remove<E extends Entry>(
    about: About,
    all: Map<string, E>,
    options: ChangeOptions | undefined,
    plan: (entry: E) => Departure<E>,
  ): Promise<void> {
    return this.#alone(about, async () => {
      const entry = all.get(about.subject)
      if (!entry) throw new VmError({ ...about, code: 'NOT_FOUND', what: 'there is no device with this id' })
      if (entry.status === 'unknown') throw unsettled(about, about.subject)
      await bringOut(await this.#begin(about, all, options), plan(entry))
    })
  }

  async #alone<T>(about: About, change: () => Promise<T>): Promise<T> {
    const name = `${about.op} ${about.subject}`.trim()
    if (this.#changing !== undefined)
      throw new VmError({ ...about, code: 'BUSY', what: `${this.#changing} is under way`, next: 'Try again when it has ended.' })
    this.#changing = name
    trace({ type: 'begin', ...about }, '%s', name)
    try {
      const result = await change()
      trace({ type: 'end', ...about }, '%s: done', name)
      return result
    } catch (error) {
      trace({ type: 'end', ...about, error }, '%s: failed: %s', name, textOf(error))
      throw error
    } finally {
      this.#changing = undefined
    }
  }

  /** What a change goes on with, once the guest can be asked. */
  async #begin<K, E extends { readonly id: K }>(about: About, all: Map<K, E>, options?: ChangeOptions): Promise<Context<E>> {
    const signal = await this.#ready(about, options)
    return {
      ...{ about, signal },
      save: async () => this.#options.save?.(this.snapshot()),
      noted: () => this.#noted(),
      report: () => this.#machine.report(),
      add: (entry) => void all.set(entry.id, entry),
      delete: ({ id }) => void all.delete(id),
    }
  }

  async #noted(): Promise<void> {
    try {
      await this.#options.save?.(this.snapshot())
    } catch (error) {
      // What was saved before the step says `unknown`, and that is still true.
      trace({ type: 'unsaved', error }, 'the state could not be saved: %s', textOf(error))
    }
  }

  /** Nothing is touched before the guest can be asked. Resolves with what aborts when that guest is gone, or the caller gives up. */
  async #ready(about: About, options: ChangeOptions = {}): Promise<AbortSignal> {
    const { guest, guestGone } = this.#machine
    const signal = options.signal ? AbortSignal.any([guestGone, options.signal]) : guestGone
    const notReady = (what: string, next: string, cause?: unknown) =>
      new VmError({ ...about, code: 'NOT_READY', what, next, cause })
    if (guest === 'dead') throw notReady('the guest is dead', 'Reconcile to boot another one.')
    if (guest === 'paused') throw notReady('the guest is paused', 'Let it go on first.')
    if (guest === 'booting') throw notReady('the guest still boots', 'Try again when the VM is running.')
    try {
      await this.#manager.ready({ timeoutMs: this.#readyTimeoutMs, signal })
    } catch (cause) {
      if (signal.aborted) throw cause
      throw notReady('there is no connection to the guest at the moment', 'Try again, or reconcile.', cause)
    }
    return signal
  }
}

interface Entry {
  readonly id: string
  status: DeviceStatus
}

function isConnected({ state }: { state: string }): boolean {
  return state === 'ServiceConnected' || state === 'ServiceBusy'
}

function unsettled(about: About, what: string): VmError {
  return conflict(about, `it is unknown whether the guest has ${what}`, 'Reconcile to find out.')
}

function conflict(about: About, what: string, next: string): VmError {
  return new VmError({ ...about, code: 'CONFLICT', what, next })
}
