import { isUpcallError } from '@upcall/client'
import { type DeviceManager, formatBdf, isGuestError, isResizeError, type ResizeResult } from '@upcall/device-manager'
import { type Arch, isWireError } from '@upcall/wire'
import type { Books, DeviceStatus, Disk, Drive, PciDevice } from './devices.js'
import { VmError } from './error.js'
import { sameWindow, type Window } from './mmio-space.js'
import { sameFunction } from './pci-bus.js'
import type { GuestReport, Machine } from './port.js'
import { type Reconciled, Reconciler } from './reconciler.js'
import { type VmState, type VmView, viewBooks, viewGuest } from './view.js'

export interface VmOptions {
  arch: Arch
  /** vCPUs that run at boot. */
  cpus: number
  /** The most it can have. */
  maxCpus: number
  machine: Machine
  manager: DeviceManager<Arch>
  /** How long a change waits for a connection that is being made again, in milliseconds. Default 500. */
  readyMs?: number | undefined
  /** How long a reconcile waits for the guest to be ready and to have ended what it is at, in milliseconds. Default 30,000. */
  reconcileMs?: number | undefined
}

/**
 * The VMM's side of a VM: its bookkeeping, its hardware and the upcall, in the order that survives a failure of either. Plugging is
 * hardware first, then the guest; unplugging the other way round. When the guest refuses, or was not asked, everything is as it was
 * before; when nobody knows, the hardware stays and the books say `unknown` until {@link Vm.reconcile} settles it. One change at a time.
 */
export class Vm {
  readonly #options: VmOptions
  readonly #machine: Machine
  readonly #manager: DeviceManager<Arch>
  readonly #books: Books
  readonly #reconciler: Reconciler
  /** Windows that the guest has from somebody else, as its refusals tell: not tried again before a reconcile. */
  #foreign: Window[] = []
  #changing: string | undefined

  constructor(options: VmOptions) {
    this.#options = options
    this.#machine = options.machine
    this.#manager = options.manager
    this.#books = { cpus: { present: firstIds(options.cpus), unknown: [] }, drives: new Map(), pci: new Map() }
    const { machine, manager, reconcileMs: timeoutMs = 30_000 } = options
    this.#reconciler = new Reconciler({ machine, manager, books: this.#books, timeoutMs })
  }

  get state(): VmState {
    const { guest } = this.#machine
    if (guest !== 'booted') return guest
    return isConnected(this.#manager) ? 'running' : 'reconnecting'
  }

  /** What the VMM believes, beside what the guest says. */
  async view(): Promise<VmView> {
    const guest = await this.#machine.report()
    const { arch, maxCpus: max } = this.#options
    const { memory, spares } = this.#machine
    const believed = viewBooks(this.#books, { max, memory, spares })
    return { state: this.state, arch, believed, guest: guest ? viewGuest(guest) : null }
  }

  /** Brings the number of vCPUs to `target`. If it fails in the middle, what was done before is taken back if the guest can be asked. */
  resize(target: number): Promise<ResizeResult<'x86_64'>> {
    const subject = `resize to ${target} vCPUs`
    return this.#alone(subject, () => this.#resizeCpus(subject, target))
  }

  /** @throws VmError `INVALID` unless the VM can have so many bytes. */
  checkMemory(bytes: number): void {
    this.#machine.checkMemory(bytes)
  }

  /** Brings the guest's memory to so many bytes. */
  resizeMemory(bytes: number): Promise<void> {
    const subject = `resize to ${bytes} bytes of memory`
    return this.#alone(subject, () => this.#resizeMemory(subject, bytes))
  }

  /** Both as one change, vCPUs first. They are taken back if the memory stays as it is, and stay if nobody knows. */
  resizeBoth(target: number, bytes: number): Promise<ResizeResult<'x86_64'>> {
    const subject = `resize to ${target} vCPUs and ${bytes} bytes of memory`
    return this.#alone(subject, async () => {
      this.checkMemory(bytes)
      const { length: before } = this.#books.cpus.present
      const resized = await this.#resizeCpus(subject, target)
      try {
        await this.#resizeMemory(subject, bytes)
      } catch (error) {
        if (target !== before && error instanceof VmError) {
          if (error.code === 'UNFINISHED') error.message += `; the vCPUs are ${target} now`
          else await this.#takeBack(before, error)
        }
        throw error
      }
      return resized
    })
  }

  /** Adds a virtio-mmio block device. */
  addDrive(id: string, { pathOnHost, isReadOnly }: Disk): Promise<Drive> {
    const { drives } = this.#books
    return this.#add(`add drive ${id}`, drives, id, () => {
      const taken = [...[...drives.values()].map(({ window }) => window), ...this.#foreign]
      const window = this.#machine.chooseWindow(taken)
      if (!window) throw new VmError('EXHAUSTED', `add drive ${id}: no free window or line is left; remove a drive first`)
      const drive: Drive = { id, window, pathOnHost, isReadOnly, status: 'adding' }
      return {
        entry: drive,
        plug: () => this.#machine.attachDrive(drive),
        announce: async (signal) => {
          try {
            await this.#manager.addMmio(window, { signal })
          } catch (error) {
            if (isGuestError(error) && error.errnoName === 'EEXIST') this.#foreign.push(window)
            throw error
          }
        },
        unplug: () => this.#machine.detachDrive(drive),
      }
    })
  }

  /** Removes it in two phases: the guest lets go, only then the device model is torn down. */
  removeDrive(id: string): Promise<void> {
    return this.#remove(`remove drive ${id}`, this.#books.drives, id, {
      release: ({ window }, signal) => this.#manager.removeMmio(window, { signal }),
      // The guest refuses a window of its command line or firmware in the same way, and uses it.
      isGone: (guest, { window }) => guest !== undefined && !guest.mmio.some((other) => sameWindow(other, window)),
      unplug: (drive) => this.#machine.detachDrive(drive),
    })
  }

  /** Adds a PCI device, at `bdf` or in the lowest free slot: a disk, or some device with nothing behind it. */
  addPci(id: string, bdf?: string | undefined, disk?: Disk | undefined): Promise<PciDevice> {
    const { pci } = this.#books
    return this.#add(`add PCI device ${id}`, pci, id, () => {
      const taken = [...pci.values()].map(({ place }) => place)
      const place = this.#machine.choosePlace(taken, bdf)
      if (!place) throw new VmError('EXHAUSTED', `add PCI device ${id}: no free slot is left; remove a device first`)
      if (taken.some((other) => sameFunction(other, place)))
        throw new VmError('CONFLICT', `add PCI device ${id}: ${formatBdf(place)} is taken; choose another address, or none`)
      const device: PciDevice = { id, place, disk, status: 'adding' }
      return {
        entry: device,
        plug: () => this.#machine.plugPci(device),
        announce: (signal) => this.#manager.addPci(place, { signal }),
        unplug: () => this.#machine.unplugPci(device),
      }
    })
  }

  removePci(id: string): Promise<void> {
    return this.#remove(`remove PCI device ${id}`, this.#books.pci, id, {
      release: ({ place }, signal) => this.#manager.removePci(place, { signal }),
      isGone: (guest, { place }) => !guest?.pci.some((other) => sameFunction(other, place)),
      unplug: (device) => this.#machine.unplugPci(device),
    })
  }

  /** Settles what is unknown, and replaces a dead guest. @throws as {@link Reconciler.run} does. */
  reconcile(): Promise<Reconciled> {
    return this.#alone('reconcile', () => {
      this.#foreign = []
      return this.#reconciler.run()
    })
  }

  async #resizeCpus(subject: string, target: number): Promise<ResizeResult<'x86_64'>> {
    const { maxCpus } = this.#options
    if (!Number.isInteger(target) || target < 1 || target > maxCpus)
      throw new VmError('INVALID', `${subject}: this VM can have 1 to ${maxCpus} vCPUs`)
    const { present, unknown } = this.#books.cpus
    if (unknown.length > 0) throw unsettled(subject, `vCPU ${unknown.join(', ')}`)
    if (target === present.length) return { added: [], removed: [], present }
    const signal = await this.#ready(subject)
    try {
      return await this.#resizeTo(target, signal)
    } catch (error) {
      const { length: now } = this.#books.cpus.present
      if (isResizeError(error) && now !== present.length) {
        const isCertain = error.outcome !== 'indeterminate' && this.#books.cpus.unknown.length === 0
        if (!isCertain) error.message += `; ${now} vCPUs are certain`
        else await this.#takeBack(present.length, error)
      }
      throw error
    }
  }

  async #resizeMemory(subject: string, bytes: number): Promise<void> {
    this.checkMemory(bytes)
    if (this.#machine.hasMemory(bytes)) return
    await this.#ready(subject)
    await this.#machine.resizeMemory(bytes)
  }

  async #resizeTo(target: number, signal: AbortSignal): Promise<ResizeResult<'x86_64'>> {
    const { arch, maxCpus: max } = this.#options
    const { present } = this.#books.cpus
    try {
      const result = await this.#manager.resizeCpus(target, {
        present: arch === 'x86_64' ? present : present.length,
        max,
        // A batch that is refused does not say how far it got.
        oneByOne: true,
        start: (ids) => this.#machine.startCpus(ids),
        stop: (ids) => this.#machine.stopCpus(ids),
        signal,
      })
      this.#books.cpus = { present: asIds(result.present), unknown: [] }
      return { ...result, present: this.#books.cpus.present }
    } catch (error) {
      if (!isResizeError(error)) throw error
      this.#books.cpus = { present: asIds(error.present), unknown: [...error.unknown] }
      if (!isGuestError(error)) throw error
      const done = await this.#acceptState(error.operation.op === 'cpu.add').catch((cause: Error) => {
        error.message += `; the guest may have it so already, but it could not be settled: ${cause.message}`
        error.cause ??= cause
        return undefined
      })
      if (done === undefined) throw error
      const withRest = ({ added, removed }: Pick<ResizeResult<'x86_64'>, 'added' | 'removed'>) => ({
        added: [...error.added, ...done.added, ...added],
        removed: [...error.removed, ...done.removed, ...removed],
      })
      try {
        const rest = await this.#resizeTo(target, signal)
        return { ...withRest(rest), present: rest.present }
      } catch (failure) {
        throw isResizeError(failure) ? Object.assign(failure, withRest(failure)) : failure
      }
    }
  }

  /**
   * A guest also refuses what is so already: to bring a vCPU online that a udev rule, say, has brought online, or to take one offline that is
   * offline. If the guest says that the vCPU is as it was to be, the hardware and the books follow. Resolves with what this changed, or
   * with undefined if the vCPU is not as it was to be.
   */
  async #acceptState(online: boolean): Promise<{ added: number[]; removed: number[] } | undefined> {
    const { present, unknown } = this.#books.cpus
    // After +1 the refused vCPU is the unknown one; after a negative errno the one that was next.
    const id = unknown[0] ?? (online ? lowestFreeId(present) : Math.max(...present))
    const guest = await this.#machine.report()
    if (guest === undefined || guest.cpus.online.includes(id) !== online) return undefined
    if (online && unknown.length === 0) await this.#machine.startCpus([id])
    if (!online) await this.#machine.stopCpus([id])
    const others = present.filter((each) => each !== id)
    this.#books.cpus = { present: online ? [...others, id].sort((a, b) => a - b) : others, unknown: [] }
    return online ? { added: [id], removed: [] } : { added: [], removed: [id] }
  }

  /** If this fails as well, the books say where it stands, and the caller hears of both. */
  async #takeBack(count: number, failure: Error): Promise<void> {
    const subject = `back to ${count} vCPUs`
    try {
      const signal = await this.#ready(subject)
      await this.#resizeTo(count, signal)
    } catch (error) {
      failure.message += `; going back to ${count} vCPUs failed too: ${(error as Error).message}`
    }
  }

  #add<E extends { id: string; status: DeviceStatus }>(
    subject: string,
    book: Map<string, E>,
    id: string,
    plan: () => Plan<E>,
  ): Promise<E> {
    return this.#alone(subject, async () => {
      if (book.has(id))
        throw new VmError('CONFLICT', `${subject}: there is one with this id; choose another id, or remove it first`)
      const { entry, plug, announce, unplug } = plan()
      const signal = await this.#ready(subject)
      book.set(id, entry)
      try {
        await plug()
      } catch (cause) {
        book.delete(id)
        if (cause instanceof VmError) throw cause
        const why = (cause as Error).message
        throw new VmError('NOT_READY', `${subject}: it could not be plugged in: ${why}; the guest was not asked`, { cause })
      }
      try {
        await announce(signal)
        entry.status = 'present'
        return entry
      } catch (error) {
        if (mayHaveHappened(error)) {
          entry.status = 'unknown'
        } else {
          await unplug().catch((cause: Error) => {
            // What the guest said is the answer all the same.
            if (error instanceof Error) error.message += `; it could not be unplugged: ${cause.message}`
          })
          book.delete(id)
        }
        throw error
      }
    })
  }

  #remove<E extends { id: string; status: DeviceStatus }>(
    subject: string,
    book: Map<string, E>,
    id: string,
    { release, isGone, unplug }: Removal<E>,
  ): Promise<void> {
    return this.#alone(subject, async () => {
      const entry = book.get(id)
      if (!entry) throw new VmError('NOT_FOUND', `${subject}: there is none; GET /vm lists what there is`)
      if (entry.status === 'unknown') throw unsettled(subject, id)
      const signal = await this.#ready(subject)
      entry.status = 'removing'
      try {
        await release(entry, signal)
      } catch (error) {
        entry.status = mayHaveHappened(error) ? 'unknown' : 'present'
        // One that another program in the guest has let go of, say its own hotplug, is as good as one that we have asked it to let go of.
        const knowsNone = isGuestError(error) && error.errnoName === 'ENODEV'
        if (!knowsNone || !isGone(await this.#machine.report(), entry)) throw error
      }
      await unplug(entry)
      book.delete(id)
    })
  }

  async #alone<T>(subject: string, change: () => Promise<T>): Promise<T> {
    if (this.#changing !== undefined)
      throw new VmError('BUSY', `${subject}: ${this.#changing} is under way; try again when it has ended`)
    this.#changing = subject
    try {
      return await change()
    } finally {
      this.#changing = undefined
    }
  }

  /**
   * Nothing is touched before the guest can be asked. Resolves with what aborts when that guest is gone: what was meant for it waits for no
   * other.
   */
  async #ready(subject: string): Promise<AbortSignal> {
    const { guest, guestGone: signal } = this.#machine
    const notReady = (what: string, cause?: unknown) => new VmError('NOT_READY', `${subject}: ${what}`, { cause })
    if (guest === 'dead') throw notReady('the guest is dead; POST /vm/reconcile boots another one')
    if (guest === 'paused') throw notReady('the guest is paused; let it go on first')
    if (guest === 'booting') throw notReady('the guest is still booting; try again when GET /vm says running')
    try {
      await this.#manager.ready({ timeoutMs: this.#options.readyMs ?? 500, signal })
    } catch (cause) {
      throw notReady('there is no connection to the guest at the moment; try again, or POST /vm/reconcile', cause)
    }
    return signal
  }
}

/** How something comes into the VM: hardware first, then the guest. */
interface Plan<E> {
  readonly entry: E
  plug(): Promise<void>
  announce(signal: AbortSignal): Promise<unknown>
  unplug(): Promise<void>
}

/** How something goes out of the VM: the guest lets go, then the hardware. */
interface Removal<E> {
  release(entry: E, signal: AbortSignal): Promise<unknown>
  /** Whether the guest does not have it, given that it says to know of none; `guest` is undefined if it does not say what it has. */
  isGone(guest: GuestReport | undefined, entry: E): boolean
  unplug(entry: E): Promise<void>
}

function isConnected({ state }: { state: string }): boolean {
  return state === 'ServiceConnected' || state === 'ServiceBusy'
}

/** Whether the guest may have done what was asked. What is not one of the client's errors came before the guest was asked. */
function mayHaveHappened(error: unknown): boolean {
  return !isWireError(error) && isUpcallError(error) && error.outcome === 'indeterminate'
}

function unsettled(subject: string, what: string): VmError {
  return new VmError('CONFLICT', `${subject}: it is unknown whether the guest has ${what}; POST /vm/reconcile finds out`)
}

function asIds(present: readonly number[] | number): readonly number[] {
  return typeof present === 'number' ? firstIds(present) : present
}

function lowestFreeId(present: readonly number[]): number {
  let id = 0
  while (present.includes(id)) id++
  return id
}

function firstIds(count: number): number[] {
  return Array.from({ length: count }, (_, id) => id)
}
