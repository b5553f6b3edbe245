import { isUpcallError } from '@upcall/client'
import { type DeviceManager, isGuestError } from '@upcall/device-manager'
import { duration } from '@upcall/foundation/check'
import { textOf } from '@upcall/foundation/error'
import type { Arch } from '@upcall/wire'
import { VmError } from './error.js'
import type { Inventory } from './inventory.js'
import { sameWindow } from './mmio-space.js'
import type { GuestReport, Machine } from './port.js'
import { type Difference, differences, listSettled, type Settled, type Settlement, settle, settleAsAbsent } from './reconcile.js'

export interface Reconciled {
  /** Another guest was booted, because the last one was dead. */
  restarted: boolean
  /** What was unknown, and is not any more. */
  settled: Settled[]
  /** What differs though it was never unknown. It is reported and left alone. */
  differences: Difference[]
}

/** A window that nothing can have, with which the guest is asked a question that changes nothing. */
const NOWHERE = { base: 0xffff_ffff_ffff_0000n, size: 0x1000n, irq: 5 }

export interface ReconcilerOptions {
  machine: Machine
  manager: DeviceManager<Arch>
  inventory: Inventory
  /** How long to wait for the guest to be ready and to end what it is at, in milliseconds. Default 30,000. */
  timeoutMs?: number | undefined
  /** Called when the inventory has changed. Must not reject. */
  save?: (() => Promise<void>) | undefined
}

/** Brings together what the VMM believes and what the guest has. Nothing else may go on meanwhile. */
export class Reconciler {
  readonly #machine: Machine
  readonly #manager: DeviceManager<Arch>
  readonly #inventory: Inventory
  readonly #timeoutMs: number
  readonly #save: () => Promise<void>
  /** Resets that have been dealt with; undefined if the guest may have been reset before anything was known of it. */
  #settledResets: number | undefined = 0
  /** What was done since the last run that could tell of it. */
  #untold: { restarted: boolean; settled: Settled[] } = { restarted: false, settled: [] }

  constructor({ machine, manager, inventory, timeoutMs, save = async () => {} }: ReconcilerOptions) {
    this.#machine = machine
    this.#manager = manager
    this.#inventory = inventory
    this.#timeoutMs = duration('reconcileTimeoutMs', timeoutMs, 30_000)
    this.#save = save
  }

  /** The next run tells the guest of all its windows again: it may have been reset while no controller looked. */
  announceAll(): void {
    this.#settledResets = undefined
  }

  /**
   * Settles what is unknown: what the guest has is present, what it does not have is taken out. A dead guest is replaced by another one,
   * which finds only what was certain. A run that fails keeps what it has done by then, and the next run that succeeds tells of it.
   *
   * @throws the client's error if the guest cannot be asked; what was unknown then stays so, unless the guest was dead.
   */
  async run({ signal: given }: { signal?: AbortSignal | undefined } = {}): Promise<Reconciled> {
    const restarted = this.#machine.guest === 'dead'
    if (restarted) {
      await this.#carryOut(settleAsAbsent(this.#inventory))
      this.#machine.boot()
      this.#untold.restarted = true
    }
    const { guestGone } = this.#machine
    const signal = given ? AbortSignal.any([guestGone, given]) : guestGone
    await this.#quiesce(guestGone, signal)
    const guest = await this.#machine.report()
    if (guest && !restarted) await this.#carryOut(settle(this.#inventory, guest))
    const told = await this.#tellAgain(guest, signal)
    if (!guest && !restarted && !told)
      throw new VmError({
        code: 'NOT_READY',
        op: 'reconcile',
        subject: '',
        what: 'the guest does not say what it has',
        next: 'Try again.',
      })
    const now = told ? ((await this.#machine.report()) ?? guest) : guest
    const done = this.#untold
    this.#untold = { restarted: false, settled: [] }
    return { ...done, differences: now ? differences(this.#inventory, now) : [] }
  }

  /**
   * A guest that was reset has forgotten two things. It brings spare vCPUs online, which it is to leave alone, and it does not know the
   * windows that it was given. A guest that does not say what it has is told of all windows: it refuses those that it has. Resolves with
   * whether there was anything to tell.
   */
  async #tellAgain(guest: GuestReport | undefined, signal: AbortSignal): Promise<boolean> {
    const { resets, spares } = this.#machine
    if (resets === this.#settledResets) return false
    let [asked, refused] = [false, false]
    const tell = async (settled: Settled, ask: () => Promise<unknown>) => {
      asked = true
      try {
        await ask()
        this.#untold.settled.push(settled)
      } catch (error) {
        if (!isGuestError(error)) throw error
        // A difference then, unless the guest says nothing and has it.
        refused ||= guest !== undefined || error.errnoName !== 'EEXIST'
      }
    }
    const online = new Set(guest?.cpus.online)
    const astray = spares.cpus.filter((id) => online.has(id))
    for (const id of astray.sort((a, b) => b - a)) {
      // An aarch64 guest takes its highest vCPU offline, whichever is meant.
      if (!this.#isX86 && id !== Math.max(...online)) {
        refused = true
        continue
      }
      const cpus = this.#isX86 ? { apicIds: [id] } : { count: 1 }
      await tell({ kind: 'cpu', id: String(id), now: 'absent' }, async () => {
        await this.#manager.removeCpus(cpus, { signal })
        online.delete(id)
      })
    }
    for (const { id, window, status } of this.#inventory.drives.values()) {
      if (status !== 'present' || guest?.mmio.some((other) => sameWindow(other, window))) continue
      await tell({ kind: 'mmio', id, now: 'present' }, () => this.#manager.addMmio(window, { signal }))
    }
    if (!refused) this.#settledResets = resets
    return asked
  }

  get #isX86(): boolean {
    return this.#manager.arch === 'x86_64'
  }

  /**
   * A connection, and one harmless question over it. The guest answers under the lock that CPU and MMIO requests hold, so after its
   * answer nothing that was asked before can still happen.
   */
  async #quiesce(guestGone: AbortSignal, signal: AbortSignal): Promise<void> {
    const timeoutMs = this.#timeoutMs
    this.#manager.client.reconnect()
    const ask = async () => {
      await this.#manager.ready({ timeoutMs, signal })
      await this.#manager.removeMmio(NOWHERE, { timeoutMs, signal }).catch((error) => {
        if (!isGuestError(error)) throw error
      })
    }
    try {
      // A connection may turn out to be the last guest's only when it is used.
      await ask().catch((error) => {
        if (!isUpcallError(error) || error.code !== 'DISCONNECTED' || signal.aborted) throw error
        return ask()
      })
    } catch (cause) {
      if (!guestGone.aborted) throw cause
      const what = `the guest is gone: ${textOf(guestGone.reason)}`
      throw new VmError({ code: 'NOT_READY', op: 'reconcile', subject: '', what, next: 'Try again.', cause })
    }
  }

  async #carryOut(settlement: Settlement): Promise<void> {
    const { cpus, drives, pci } = settlement
    await this.#machine.stopCpus(cpus.absent)
    for (const id of cpus.absent) this.#inventory.cpus.delete(id)
    for (const id of cpus.present) this.#inventory.cpus.get(id)!.status = 'present'
    for (const device of [...drives.present, ...pci.present]) device.status = 'present'
    for (const drive of drives.absent) {
      await this.#machine.detachDrive(drive)
      this.#inventory.drives.delete(drive.id)
    }
    for (const device of pci.absent) {
      await this.#machine.unplugPci(device)
      this.#inventory.pci.delete(device.id)
    }
    this.#untold.settled.push(...listSettled(settlement))
    await this.#save()
  }
}
