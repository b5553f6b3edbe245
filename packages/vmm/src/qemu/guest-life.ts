import { callBack } from '@upcall/foundation/callback'
import { systemClock } from '@upcall/foundation/clock'
import { Driver } from '@upcall/foundation/driver'
import { messageFor } from '@upcall/foundation/error'
import { traceOf } from '@upcall/foundation/trace'
import { type Guest, QemuError, type QmpClient, type QmpEvent } from '@upcall/qemu'
import type { Machine } from '../port.js'
import { guestOf, LifeCycle, type LifeEffect, type LifeEvent, launchOf } from './life.js'

/** A QEMU that runs. */
export type RunningQemu = Pick<Guest, 'pid' | 'qmp' | 'exited' | 'close'>

/** What the life of a guest does to the machine that it runs on. */
export interface GuestLifeOptions {
  /** Starts QEMU. Rejects, with nothing left running, if the guest does not come up. */
  launch(signal: AbortSignal): Promise<RunningQemu>
  /** Asks a QEMU that has just been launched what it has, and gives it what it lacks. */
  probe(qmp: QmpClient): Promise<void>
  /** A new QEMU follows: the spares of the last one are gone. */
  onRelaunch(): void
  /** What QEMU says of its devices. */
  onDevice(event: QmpEvent): void
  onLaunch?: ((pid: number) => void) | undefined
  onReset?: (() => void) | undefined
  onExit?: ((why: string) => void) | undefined
}

const trace = traceOf('vmm')
const STOPPED = 'the machine is stopped'

/** QMP events that are about the guest's life. */
const LIFE_EVENTS: Readonly<Record<string, 'paused' | 'resumed' | 'reset'>> = {
  STOP: 'paused',
  RESUME: 'resumed',
  RESET: 'reset',
}

/** Runs one QEMU after the other, as the table in life.ts says. */
export class GuestLife {
  readonly #options: GuestLifeOptions
  readonly #cycle = new LifeCycle()
  readonly #driver: Driver<LifeEvent, LifeEffect>
  /** The QEMU that was launched last, once it runs. */
  #qemu: RunningQemu | undefined
  #gone = new AbortController()
  #resets = 0
  /** Aborts when no QEMU is to be launched any more. */
  readonly #stop = new AbortController()
  readonly #stopped: Promise<void>
  #onStopped!: () => void
  #launched!: Promise<void>

  constructor(options: GuestLifeOptions) {
    this.#options = options
    this.#stopped = new Promise((resolve) => {
      this.#onStopped = resolve
    })
    const step = (event: LifeEvent | { type: 'wake' }, now: number) => {
      const from = this.#cycle.state.kind
      const effects = this.#cycle.step(event, now)
      const to = this.#cycle.state.kind
      trace({ type: 'qemu.life', event, from, to }, 'qemu %s: %s → %s', event.type, from, to)
      return effects
    }
    const machine = { step, wakeAt: this.#cycle.wakeAt }
    this.#driver = new Driver<LifeEvent, LifeEffect>({ machine, clock: systemClock, perform: (effect) => this.#perform(effect) })
    this.boot()
  }

  get guest(): Machine['guest'] {
    return guestOf(this.#cycle.state)
  }

  get guestGone(): AbortSignal {
    return this.#gone.signal
  }

  get resets(): number {
    return this.#resets
  }

  get pid(): number | undefined {
    return this.#qemu?.pid
  }

  /** Resolves when this guest's QEMU runs and was probed, or rejects with why it does not run. */
  get launched(): Promise<void> {
    return this.#launched
  }

  /** The monitor of this guest's QEMU, if that runs. */
  get monitor(): QmpClient | undefined {
    return this.guest === 'dead' ? undefined : this.#qemu?.qmp
  }

  get isStopped(): boolean {
    const { kind } = this.#cycle.state
    return kind === 'Stopping' || kind === 'Stopped'
  }

  /** Boots another guest. Not allowed once the life {@link isStopped}. */
  boot(): void {
    this.#driver.tell({ type: 'boot' })
  }

  greeted(): void {
    this.#driver.tell({ type: 'greeted' })
  }

  /** Ends the guest for good. Idempotent. */
  async stop(): Promise<void> {
    this.#driver.tell({ type: 'stop' })
    await this.#stopped
    await this.#launched.catch(() => {})
  }

  #perform(effect: LifeEffect): void {
    const { onRelaunch, onLaunch, onReset, onExit } = this.#options
    switch (effect.type) {
      case 'launch':
        this.#launched = this.#launch(effect.launch)
        // The owner may look at it or not.
        this.#launched.catch(() => {})
        break
      case 'close':
        void this.#close(effect.launch)
        break
      case 'cancel':
        this.#stop.abort(new Error(STOPPED))
        break
      case 'guestGone':
        this.#gone.abort(new Error(effect.why))
        break
      case 'guestNew':
        this.#gone = new AbortController()
        this.#resets++
        break
      case 'forgetSpares':
        onRelaunch()
        break
      case 'tellLaunch':
        callBack(onLaunch, this.#qemu!.pid)
        break
      case 'tellReset':
        callBack(onReset)
        break
      case 'tellExit':
        callBack(onExit, effect.why)
        break
      case 'stopped':
        void this.#end()
        break
    }
  }

  async #launch(launch: number): Promise<void> {
    const { signal } = this.#stop
    const last = this.#qemu
    this.#qemu = undefined
    let qemu: RunningQemu
    try {
      // The last QEMU may still be on its way out, and holds its files until it is gone.
      await last?.close()
      signal.throwIfAborted()
      qemu = await this.#options.launch(signal)
    } catch (error) {
      this.#driver.tell({ type: 'launchFailed', launch, why: messageFor(error) })
      throw error
    }
    this.#qemu = qemu
    this.#driver.tell({ type: 'launched', launch })
    this.#follow(launch, qemu)
    try {
      const { running } = await qemu.qmp.execute<{ running?: boolean }>('query-status')
      this.#driver.tell({ type: running === false ? 'paused' : 'resumed', launch })
      await this.#options.probe(qemu.qmp)
    } catch (error) {
      const monitorEnded = error instanceof QemuError && error.code === 'QMP_CLOSED'
      this.#driver.tell({ type: 'probeFailed', launch, why: messageFor(error), monitorEnded })
      await qemu.close()
      throw error
    }
    this.#driver.tell({ type: 'probed', launch })
  }

  #follow(launch: number, { qmp, exited }: RunningQemu): void {
    qmp.on('event', (event) => {
      const type = LIFE_EVENTS[event.event]
      if (type !== undefined) this.#driver.tell({ type, launch })
      else if (launchOf(this.#cycle.state) === launch) this.#options.onDevice(event)
    })
    void exited.then(({ code, signal, output }) => {
      const how = signal ? `was ended by ${signal}` : `ended with status ${code}`
      this.#driver.tell({ type: 'exited', launch, why: `QEMU ${how}${output && `: ${output}`}` })
    })
  }

  async #close(launch: number): Promise<void> {
    await this.#qemu?.close()
    this.#driver.tell({ type: 'closed', launch })
  }

  /** QEMU ends before the abort: that would kill it, and it may still write out what it holds. */
  async #end(): Promise<void> {
    await this.#qemu?.close()
    this.#stop.abort(new Error(STOPPED))
    this.#onStopped()
  }
}
