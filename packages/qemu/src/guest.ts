import type { Duplex } from 'node:stream'
import { types } from 'node:util'
import { ARCHES, archOf } from './arch.js'
import { invalid, type MachineOptions, qemuArgv } from './argv.js'
import { abortedError, type Clock, systemClock } from './bounded.js'
import { checkClock, checkFunction, checkOptions, checkSignal, checkTexts } from './check.js'
import { GuestConsole, type WaitOptions } from './console.js'
import { QemuError } from './errors.js'
import { type Log, openLog } from './log.js'
import { findQemu, type QemuExit, type QemuProcess, startQemu } from './process.js'
import { QmpClient } from './qmp.js'
import { unsupported } from './unsupported.js'

export interface BootOptions extends MachineOptions {
  /** The program, a name or a path; default `qemu-system-x86_64`, for the machine `virt` `qemu-system-aarch64`. */
  qemu?: string | undefined
  /**
   * Everything the console prints goes here too: a file, written anew, or a function. Boots that were given up are in it as well. A file
   * that cannot be written to any more, say because the disk is full, is told by a process warning; the guest goes on.
   */
  log?: string | ((text: string) => void) | undefined
  /** The console line that ends the boot; default: the kernel's `Run <path> as init process`. `false`: do not wait for the guest. */
  ready?: string | RegExp | false | undefined
  /** For the whole boot, restarts included, in milliseconds; default 60000, infinity for none. */
  bootDeadlineMs?: number | undefined
  /** A boot whose console stays silent for so many milliseconds is started again; default 10000, infinity for never. */
  silentMs?: number | undefined
  /** How many times; default 2. */
  maxRestarts?: number | undefined
  /** Called for each such restart, before it. */
  onRestart?: ((restart: BootRestart) => void) | undefined
  /** Kills the guest, whether it is still booting or not. */
  signal?: AbortSignal | undefined
  clock?: Clock | undefined
}

/** A boot that was given up because it had gone silent. */
export interface BootRestart {
  /** 1 for the first boot. */
  attempt: number
  afterMs: number
  lastLines: string[]
}

export interface Guest extends AsyncDisposable {
  /** QEMU's process id. */
  readonly pid: number
  readonly console: GuestConsole
  readonly qmp: QmpClient
  /** How the boot went: time from the last start of QEMU to the `ready` line, and the boots given up before. */
  readonly boot: { readonly ms: number; readonly restarts: readonly BootRestart[] }
  /** Settles when QEMU is gone, for whatever reason; never rejects. */
  readonly exited: Promise<QemuExit>
  /** The host's end of the virtio-serial port of that name. */
  port(name: string): Duplex
  /** Types into the guest's console. */
  type(text: string): void
  /** The same as `console.waitFor`. */
  waitFor(pattern: string | RegExp, options: WaitOptions): Promise<RegExpMatchArray>
  /** SIGKILL at once. */
  kill(): void
  /** Ends QEMU (SIGTERM, after two seconds SIGKILL) and resolves when everything is closed. Twice is once. */
  close(): Promise<void>
}

const READY = /Run \S+ as init process/
const PANIC = /Kernel panic - .*/
/** How far from the console's end a panic is looked for: a kernel prints its stack behind it. */
const PANIC_LINES = 200
const TERM_GRACE_MS = 2000

/**
 * Boots a guest and resolves when it is ready. Rejects with a QemuError, QEMU being gone by then: INVALID_OPTION, TOOL_MISSING, UNSUPPORTED,
 * EXITED, PANIC, BOOT_SILENT, DEADLINE, ABORTED. The guest's owner closes it; should the owner's process end first, QEMU ends with it.
 */
export async function bootGuest(options: BootOptions): Promise<Guest> {
  checkOptions('boot', options)
  const { bootDeadlineMs = 60_000, maxRestarts = 2, silentMs, clock = systemClock, signal, log: sink, ready } = options
  checkSignal('boot', signal)
  checkClock('boot', clock)
  checkFunction('boot option onRestart', options.onRestart)
  if (sink !== undefined && typeof sink !== 'function' && (typeof sink !== 'string' || sink === ''))
    throw invalid('log', sink, 'the path of a file, or a function')
  if (ready !== undefined && ready !== false && typeof ready !== 'string' && !types.isRegExp(ready))
    throw invalid('ready', ready, 'a text, a RegExp or false')
  // What startQemu() counts before it makes a command line.
  checkTexts('boot option ports', options.ports)
  duration('bootDeadlineMs', bootDeadlineMs)
  if (silentMs !== undefined) duration('silentMs', silentMs)
  if (!Number.isInteger(maxRestarts) || maxRestarts < 0) throw invalid('maxRestarts', maxRestarts, 'an integer of at least 0')
  const program = findQemu(options.qemu ?? ARCHES[archOf(options.machine ?? 'q35')].qemu)
  const deadline = clock.now() + bootDeadlineMs
  const restarts: BootRestart[] = []
  const log = openLog(options.log)
  try {
    for (;;) {
      if (signal?.aborted) throw abortedError('boot', signal)
      const started = clock.now()
      const qemu = startQemu(program, (fds) => qemuArgv(options, fds), options.ports?.length ?? 0)
      const guest = new RunningGuest(qemu, options, log)
      try {
        await guest.booted(deadline - started)
        guest.boot = { ms: clock.now() - started, restarts }
        void guest.exited.then(() => log[Symbol.dispose]())
        return guest
      } catch (error) {
        guest.kill()
        await guest.exited
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
    const { signal } = options
    const onAbort = () => this.kill()
    signal?.addEventListener('abort', onAbort, { once: true })
    this.exited = qemu.exited.then((exit) => {
      signal?.removeEventListener('abort', onAbort)
      this.#release(exit)
      return exit
    })
  }

  get pid(): number {
    // Nobody has a guest whose QEMU could not be started.
    return this.#process.pid!
  }

  /** Resolves when the guest is ready and QMP is up. */
  async booted(deadlineMs: number): Promise<void> {
    const { signal, ready = READY, silentMs = 10_000 } = this.#options
    const greeted = QmpClient.over(this.#process.qmp, { handshakeMs: deadlineMs, signal, clock: this.#clock })
    greeted.catch(() => {})
    if (ready !== false) {
      const silence = this.#silence(silentMs)
      const panic = this.#panic(deadlineMs)
      try {
        await Promise.race([this.console.waitFor(ready, { deadlineMs, signal }), silence.promise, panic.promise])
      } catch (error) {
        const { endReason } = this.console
        if (endReason === undefined || !['EXITED', 'PANIC', 'UNSUPPORTED'].includes(endReason.code)) throw error
        throw new QemuError(endReason.code, `boot: ${endReason.summary}`, { console: this.console.tail() })
      } finally {
        silence.cancel()
        panic.cancel()
      }
    }
    try {
      this.qmp = await greeted
    } catch (error) {
      if (!(error instanceof QemuError) || error.code !== 'QMP_CLOSED') throw error
      // A QEMU that does not like its options leaves without a greeting; why it did so is on its stderr.
      await this.exited
      throw this.console.endReason ?? error
    }
  }

  port(name: string): Duplex {
    const names = this.#options.ports ?? []
    const stream = this.#process.ports[names.indexOf(name)]
    if (stream) return stream
    throw new QemuError('INVALID_OPTION', `no port ${JSON.stringify(name)}; ports: ${names.join(', ') || 'none'}`)
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
    if (signal?.aborted) this.console.end(abortedError('guest', signal))
    else if (this.#closing) this.console.end(new QemuError('CLOSED', 'the guest was closed'))
    else this.console.end(exitedError(exit, this.console))
    this.#process.console.destroy()
    this.#process.qmp.destroy()
    // Ports may hold results that are still to be read: they end by themselves then, or with close().
    for (const stream of this.#process.ports) stream.end()
  }

  /** Rejects with PANIC when the kernel panics. One that may not reboot ends QEMU then, which tells as well. */
  #panic(deadlineMs: number): { promise: Promise<never>; cancel(): void } {
    const ended = new AbortController()
    const promise = new Promise<never>((_, reject) => {
      if (!this.#options.reboot) return
      const seen = this.console.waitFor(PANIC, { deadlineMs, signal: ended.signal })
      // Any other end of this wait is told by the wait for the ready line.
      seen.then(
        ([line]) => reject(new QemuError('PANIC', `boot: ${line}`, { console: this.console.tail() })),
        () => {},
      )
    })
    return { promise, cancel: () => ended.abort() }
  }

  /** Rejects with BOOT_SILENT when the console has been silent for `ms`. */
  #silence(ms: number): { promise: Promise<never>; cancel(): void } {
    let cancelTimer = () => {}
    const promise = new Promise<never>((_, reject) => {
      const arm = () => {
        cancelTimer()
        cancelTimer = this.#clock.setTimer(ms, () => reject(new QemuError('BOOT_SILENT', `console silent for ${ms} ms`)))
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

/** @throws QemuError unless it is a time, which may be infinite. */
function duration(what: string, value: number): void {
  if (!(typeof value === 'number' && value > 0)) throw invalid(what, value, 'milliseconds above 0, or infinity')
}

function exitedError({ code, signal, output }: QemuExit, console: GuestConsole): QemuError {
  const how = signal ? `was killed by ${signal}` : code === null ? 'did not start' : `exited with status ${code}`
  const end = `QEMU ${how}${output && `: ${output}`}`
  const panic = signal
    ? undefined
    : console
        .tail(PANIC_LINES)
        .flatMap((line) => PANIC.exec(line) ?? [])
        .at(-1)
  const lacks = signal ? undefined : unsupported(output)
  if (lacks !== undefined) return new QemuError('UNSUPPORTED', `${lacks}; ${end}`, { console: console.tail() })
  if (panic === undefined) return new QemuError('EXITED', end, { console: console.tail() })
  return new QemuError('PANIC', `${panic}; ${end}`, { console: console.tail() })
}

function silentError(restarts: readonly BootRestart[]): QemuError {
  const times = restarts.map(({ afterMs }) => `${Math.round(afterMs)} ms`).join(', ')
  const summary = `boot: the console went silent in each of ${restarts.length} attempts, given up after ${times}`
  return new QemuError('BOOT_SILENT', summary, { console: restarts.at(-1)!.lastLines })
}
