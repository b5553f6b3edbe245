import { ok } from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import type { DeviceManager } from '@upcall/device-manager'
import { type Disk, type Machine, Vm } from '@upcall/vmm'
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
  readonly #late: Promise<never>

  constructor(running: RunningMachine, { disk = DISK }: ComplianceMachine, signal: AbortSignal) {
    this.machine = running.machine
    this.disk = disk
    this.#running = running
    this.#signal = signal
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
    const { machine, manager } = this
    await this.until(manager.ready())
    return new Vm({ machine, manager, cpus: 1, maxCpus: 3, readyTimeoutMs: Number.POSITIVE_INFINITY })
  }
}
