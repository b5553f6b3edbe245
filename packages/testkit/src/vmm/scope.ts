import { ok } from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import type { DeviceManager } from '@upcall/device-manager'
import { type Disk, type Machine, Vm, type VmRestoreOptions } from '@upcall/vmm'
import type { Arch } from '@upcall/wire'
import type { ComplianceMachine, RunningMachine } from './machine.js'

const POLL_MS = 10
const DISK: Disk = { pathOnHost: '/compliance.img', isReadOnly: false }

/** What one test of a machine works with. */
export class MachineScope {
  readonly machine: Machine
  readonly disk: Disk
  readonly #running: RunningMachine
  readonly #signal: AbortSignal
  readonly #timeoutMs: number
  readonly #late: Promise<never>

  /** @param timeoutMs - How long the test may take: a guest that boots may need all of it. */
  constructor(running: RunningMachine, { disk = DISK }: ComplianceMachine, signal: AbortSignal, timeoutMs: number) {
    this.machine = running.machine
    this.disk = disk
    this.#running = running
    this.#signal = signal
    this.#timeoutMs = timeoutMs
    this.#late = new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
    // A test that waits for something sees it.
    this.#late.catch(() => {})
  }

  get manager(): DeviceManager<Arch> {
    ok(this.#running.manager, 'the machine has a manager')
    return this.#running.manager
  }

  /** `promise`, unless the test's time is up first. */
  readonly until = <T>(promise: Promise<T>): Promise<T> => Promise.race([promise, this.#late])

  /** Waits for something of which no event tells. */
  async eventually(isSo: () => boolean, what: string): Promise<void> {
    while (!isSo()) {
      if (this.#signal.aborted) throw new Error(`it did not come about that ${what}`, { cause: this.#signal.reason })
      await delay(POLL_MS)
    }
  }

  async kill(): Promise<void> {
    ok(this.#running.kill, 'the guest can be killed')
    await this.#running.kill()
  }

  /** A VM of this machine, whose guest can be asked. */
  async vm(): Promise<Vm> {
    await this.until(this.manager.ready())
    return new Vm({ ...this.options, cpus: 1, maxCpus: 3 })
  }

  get options(): VmRestoreOptions {
    const { machine, manager } = this
    return { machine, manager, readyTimeoutMs: this.#timeoutMs, reconcileTimeoutMs: this.#timeoutMs }
  }
}
