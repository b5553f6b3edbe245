import type { Duplex } from 'node:stream'
import { types } from 'node:util'
import { onAbort } from '@upcall/foundation/abort'
import {
  checkClock,
  checkObject,
  checkOptionalFunction,
  checkOptionalStrings,
  checkSignal,
  duration,
  integer,
  wrongType,
} from '@upcall/foundation/check'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { traceOf } from '@upcall/foundation/trace'
import { ARCHES, archOf } from './arch.js'
import { type MachineOptions, qemuArgv } from './argv.js'
import { type BootRestart, bootError, exitedError, PANIC, panicError, silenceError, silentError } from './boot-error.js'
import { GuestConsole, type WaitOptions } from './console.js'
import { abortedError, QemuError } from './errors.js'
import { type Log, openLog } from './log.js'
import { findQemu, type QemuExit, type QemuProcess, startQemu } from './process.js'
import { QmpClient } from './qmp.js'

export interface BootOptions extends MachineOptions {
  /** The program, a name or a path; default `qemu-system-x86_64`, for the machine `virt` `qemu-system-aarch64`. */
  qemu?: string | undefined
  /**
   * Everything that the console prints goes here too: a file, which is emptied first, or a function. Boots that were given up are in it as
   * well. When the file cannot be written to any more (the disk is full, say), a process warning says so and the guest goes on. What the
   * function throws is an uncaught exception; the guest goes on.
   */
  log?: string | ((text: string) => void) | undefined
  /** The console line that ends the boot; default: the kernel's `Run <path> as init process`. `false`: do not wait for the guest. */
  ready?: string | RegExp | false | undefined
  /** Bound on the whole boot, restarts included, in milliseconds; default 60000, Infinity for no limit. */
  bootTimeoutMs?: number | undefined
  /** A boot whose console stays silent for so many milliseconds is started again; default 10000, Infinity for never. */
  silenceTimeoutMs?: number | undefined
  /** How many times; default 2. */
  maxRestarts?: number | undefined
  /** Called for each such restart, before it. What it throws rejects the boot. */
  onRestart?: ((restart: BootRestart) => void) | undefined
  /** Kills the guest, whether it is still booting or not. */
  signal?: AbortSignal | undefined
  clock?: Clock | undefined
}

export interface Guest extends AsyncDisposable {
  /** QEMU's process id. */
  readonly pid: number
  readonly console: GuestConsole
  readonly qmp: QmpClient
  /** How the boot went: the time from the last start of QEMU to the `ready` line, and the boots that were given up before. */
  readonly boot: { readonly ms: number; readonly restarts: readonly BootRestart[] }
  /** Resolves when QEMU is gone, for any reason. It never rejects. */
  readonly exited: Promise<QemuExit>
  /** The host's end of the virtio-serial port of that name. */
  port(name: string): Duplex
  /** Types into the guest's console. */
  type(text: string): void
  /** Short for `console.waitFor`. */
  waitFor(pattern: string | RegExp, options: WaitOptions): Promise<RegExpMatchArray>
  /** SIGKILL at once. */
  kill(): void
  /** Ends QEMU (SIGTERM, after two seconds SIGKILL) and resolves when everything is closed. Idempotent. */
  close(): Promise<void>
}

const trace = traceOf('qemu')
const READY = /Run \S+ as init process/
const BOOT_TIMEOUT_MS = 60_000
const SILENCE_TIMEOUT_MS = 10_000
const MAX_RESTARTS = 2
const TERM_GRACE_MS = 2000

/**
 * Boots a guest and resolves when it is ready. Rejects with a QemuError, QEMU being gone by then: TOOL_MISSING, UNSUPPORTED, EXITED, PANIC,
 * BOOT_SILENT, DEADLINE, ABORTED; with what `onRestart` throws; and with a TypeError or RangeError for a wrong option. The guest's owner
 * closes it. If the owner's process ends first, QEMU ends with it.
 */
export async function bootGuest(options: BootOptions): Promise<Guest> {
  checkBootOptions(options)
  const { bootTimeoutMs = BOOT_TIMEOUT_MS, maxRestarts = MAX_RESTARTS, clock = systemClock, signal } = options
  const program = findQemu(options.qemu ?? ARCHES[archOf(options.machine ?? 'q35')].qemu)
  const deadline = clock.now() + bootTimeoutMs
  const restarts: BootRestart[] = []
  const log = openLog(options.log)
  try {
    for (;;) {
      if (signal?.aborted) throw abortedError({ op: 'boot', subject: '' }, signal.reason)
      const started = clock.now()
      const qemu = startQemu(program, (fds) => qemuArgv(options, fds), options.ports?.length ?? 0)
      const guest = new RunningGuest(qemu, options, log)
      try {
        await guest.booted(deadline - started)
        guest.boot = { ms: clock.now() - started, restarts }
        trace({ type: 'boot.ready', pid: guest.pid, ...guest.boot }, 'boot: ready after %d ms', guest.boot.ms)
        void guest.exited.then(() => log[Symbol.dispose]())
        return guest
      } catch (error) {
        guest.kill()
        await guest.exited
        trace(
          { type: 'boot.failed', attempt: restarts.length + 1, error },
          'boot: attempt %d failed: %s',
          restarts.length + 1,
          error,
        )
        if (!(error instanceof QemuError) || error.code !== 'BOOT_SILENT') throw error
        const restart = { attempt: restarts.length + 1, afterMs: clock.now() - started, lastLines: guest.console.tail() }
        restarts.push(restart)
        if (restarts.length > maxRestarts) throw silentError(restarts)
        options.onRestart?.(restart)
      }
    }
  } catch (error) {
    log[Symbol.dispose]()
    throw error
  }
}

/** @throws TypeError, RangeError */
function checkBootOptions(options: BootOptions): void {
  checkObject('options', options)
  const { signal, clock, log, ready, ports, bootTimeoutMs, silenceTimeoutMs, maxRestarts, onRestart } = options
  checkSignal(signal)
  if (clock !== undefined) checkClock(clock)
  checkOptionalFunction('onRestart', onRestart)
  if (log !== undefined && typeof log !== 'function' && (typeof log !== 'string' || log === ''))
    wrongType('log', 'the path of a file, or a function', log)
  if (ready !== undefined && ready !== false && typeof ready !== 'string' && !types.isRegExp(ready))
    wrongType('ready', 'a string, a RegExp or false', ready)
  // What startQemu() counts before it makes a command line.
  checkOptionalStrings('ports', ports)
  duration('bootTimeoutMs', bootTimeoutMs, BOOT_TIMEOUT_MS)
  duration('silenceTimeoutMs', silenceTimeoutMs, SILENCE_TIMEOUT_MS)
  integer('maxRestarts', maxRestarts ?? MAX_RESTARTS)
}

class RunningGuest implements Guest {
  readonly console: GuestConsole
  readonly exited: Promise<QemuExit>
  qmp!: QmpClient
  boot: Guest['boot'] = { ms: 0, restarts: [] }
  readonly #process: QemuProcess
  readonly #options: BootOptions
  readonly #clock: Clock
  #onOutput: (() => void) | undefined
  #closing: Promise<void> | undefined

  constructor(qemu: QemuProcess, options: BootOptions, log: Log) {
    this.#process = qemu
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.console = new GuestConsole(this.#clock)
    qemu.console.on('data', (chunk: Buffer) => {
      log.write(this.console.push(chunk))
      this.#onOutput?.()
    })
    const unlisten = onAbort(options.signal, () => this.kill())
    this.exited = qemu.exited.then((exit) => {
      unlisten()
      this.#release(exit)
      return exit
    })
  }

  get pid(): number {
    // Without a process id the boot has failed: the caller never gets such a guest.
    return this.#process.pid!
  }

  /** Resolves when the guest is ready and QMP is up. */
  async booted(timeoutMs: number): Promise<void> {
    const { signal, ready = READY } = this.#options
    const greeted = QmpClient.over(this.#process.qmp, { handshakeTimeoutMs: timeoutMs, signal, clock: this.#clock })
    greeted.catch(() => {})
    if (ready !== false) await this.#ready(ready, timeoutMs)
    try {
      this.qmp = await greeted
    } catch (error) {
      if (!(error instanceof QemuError)) throw error
      if (error.code !== 'QMP_CLOSED') throw bootError(error, this.console.tail())
      // A QEMU that does not like its options leaves without a greeting. The reason is on its stderr.
      await this.exited
      throw bootError(this.console.endReason ?? error, this.console.tail())
    }
  }

  /** Resolves at the ready line. */
  async #ready(ready: string | RegExp, timeoutMs: number): Promise<void> {
    const { signal } = this.#options
    const silence = this.#silence()
    const panic = this.#panic(timeoutMs)
    try {
      await Promise.race([this.console.waitFor(ready, { timeoutMs, signal }), silence.promise, panic.promise])
    } catch (error) {
      if (!(error instanceof QemuError) || error.op === 'boot') throw error
      const tail = this.console.tail()
      if (error.code !== 'DEADLINE') throw bootError(error, tail)
      const what = `the console does not show ${ready} within ${Math.round(timeoutMs)} ms`
      throw new QemuError({ code: 'DEADLINE', op: 'boot', subject: '', what, console: tail })
    } finally {
      silence.cancel()
      panic.cancel()
    }
  }

  port(name: string): Duplex {
    const names = this.#options.ports ?? []
    const stream = this.#process.ports[names.indexOf(name)]
    if (stream) return stream
    const next = names.length === 0 ? 'Name it in the option ports.' : `The guest has ${names.join(', ')}.`
    throw new QemuError({ code: 'INVALID_OPTION', op: 'port', subject: String(name), what: 'there is no such port', next })
  }

  type(text: string): void {
    this.#process.console.write(text)
  }

  waitFor(pattern: string | RegExp, options: WaitOptions): Promise<RegExpMatchArray> {
    return this.console.waitFor(pattern, options)
  }

  kill(): void {
    this.#process.kill('SIGKILL')
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#process.kill('SIGTERM')
    const cancel = this.#clock.setTimer(TERM_GRACE_MS, () => this.kill())
    await this.exited
    cancel()
    for (const stream of this.#process.ports) stream.destroy()
  }

  #release(exit: QemuExit): void {
    const { signal } = this.#options
    if (signal?.aborted) this.console.end(abortedError({ op: 'guest', subject: '' }, signal.reason))
    else if (this.#closing) this.console.end(new QemuError({ code: 'CLOSED', subject: '', what: 'its owner closed the guest' }))
    else this.console.end(exitedError(exit, this.console))
    this.#process.console.destroy()
    this.#process.qmp.destroy()
    // Ports may hold results that are still to be read: they end by themselves then, or with close().
    for (const stream of this.#process.ports) stream.end()
  }

  /** Rejects with PANIC when the kernel panics. A kernel that may not reboot ends QEMU then, which tells as well. */
  #panic(timeoutMs: number): { promise: Promise<never>; cancel(): void } {
    const ended = new AbortController()
    const promise = new Promise<never>((_, reject) => {
      if (!this.#options.reboot) return
      const seen = this.console.waitFor(PANIC, { timeoutMs, signal: ended.signal })
      // Any other end of this wait is told by the wait for the ready line.
      seen.then(
        ([line]) => reject(panicError(line, this.console.tail())),
        () => {},
      )
    })
    return { promise, cancel: () => ended.abort() }
  }

  /** Rejects with BOOT_SILENT when nothing comes over the console for too long. */
  #silence(): { promise: Promise<never>; cancel(): void } {
    const { silenceTimeoutMs: ms = SILENCE_TIMEOUT_MS } = this.#options
    let cancelTimer = () => {}
    const promise = new Promise<never>((_, reject) => {
      const arm = () => {
        cancelTimer()
        cancelTimer = this.#clock.setTimer(ms, () => reject(silenceError(ms)))
      }
      this.#onOutput = arm
      arm()
    })
    const cancel = () => {
      this.#onOutput = undefined
      cancelTimer()
    }
    return { promise, cancel }
  }
}
