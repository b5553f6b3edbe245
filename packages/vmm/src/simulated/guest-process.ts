import { type ChildProcess, fork } from 'node:child_process'
import type { Duplex, Readable } from 'node:stream'
import { textOf } from '@upcall/foundation/error'
import { connect } from '@upcall/vsock'
import { VmError } from '../error.js'
import type { GuestReport } from '../port.js'
import type { Command, CommandMessage, GuestConfig, GuestMessage } from './messages.js'

/** How long the guest's process may take to answer a command. It has nothing else to do. */
const ANSWER_MS = 10_000
/** How long it may take to end by itself. */
const STOP_MS = 2_000
const STDERR_TAIL = 2_000

interface Waiter {
  resolve(report: GuestReport | undefined): void
  reject(error: Error): void
  cancel(): void
}

/** One guest, in a process of its own, from fork to exit. Owns the process, its channel, and the commands that wait for an answer. */
export class GuestProcess {
  readonly #child: ChildProcess
  readonly #socket: string
  readonly #waiting = new Map<number, Waiter>()
  readonly #gone = new AbortController()
  /** Resolves when the process has ended, with how. Never rejects. */
  readonly exited: Promise<string>
  /** Resolves when it has booted; never if it dies before. */
  readonly booting: Promise<void>
  #state: 'booting' | 'booted' | 'dead' = 'booting'
  #stderr = ''
  #count = 0

  constructor(entry: URL, config: GuestConfig) {
    this.#socket = config.socket
    this.#child = fork(entry, [], { execArgv: [], serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    const child = this.#child
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL)
    })
    let booted = () => {}
    this.booting = new Promise((resolve) => {
      booted = resolve
    })
    child.on('message', (message: GuestMessage) => {
      if (message.type === 'done') return this.#settle(message.id)?.resolve(message.report)
      this.#state = 'booted'
      booted()
    })
    // Not the child's own 'close', which does not come after a disconnect().
    this.exited = Promise.all([exitOf(child), closeOf(child.stderr!)]).then(([how]) => {
      this.#onExit(how)
      return how
    })
    this.ask({ type: 'start', config }).catch(() => {
      // It died before it could answer. `exited` says so.
    })
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  get state(): 'booting' | 'booted' | 'dead' {
    return this.#state
  }

  /** Aborts when the process has ended. */
  get gone(): AbortSignal {
    return this.#gone.signal
  }

  /** What the guest's process last wrote to its stderr: why it ended, if it said so. */
  get stderr(): string {
    return this.#stderr.trim()
  }

  /** @throws if the process is dead, dies, or does not answer in time. */
  ask(command: Command): Promise<GuestReport | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#state === 'dead') return reject(guestError(command.type, "the guest's process is gone"))
      const id = ++this.#count
      const timer = setTimeout(
        () => this.#settle(id)?.reject(guestError(command.type, `the guest's process does not answer within ${ANSWER_MS} ms`)),
        ANSWER_MS,
      )
      this.#waiting.set(id, { resolve, reject, cancel: () => clearTimeout(timer) })
      const message: CommandMessage = { id, command }
      this.#child.send(message, (error) => {
        if (error) this.#settle(id)?.reject(error)
      })
    })
  }

  /** The guest's end of its upcall port. Rejects while the guest does not listen. */
  connect(signal: AbortSignal): Promise<Duplex> {
    return connect({ transport: 'unix', path: this.#socket }, { signal })
  }

  /** Kills it, as a crash would. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.exited
  }

  /** Lets it end by itself, and kills it if it does not. Resolves when it is gone. Idempotent. */
  async stop(): Promise<void> {
    if (this.#state === 'dead') return
    if (this.#child.connected) this.#child.disconnect()
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS)
    await this.exited
    clearTimeout(timer)
  }

  #settle(id: number): Waiter | undefined {
    const waiter = this.#waiting.get(id)
    this.#waiting.delete(id)
    waiter?.cancel()
    return waiter
  }

  #onExit(how: string): void {
    this.#state = 'dead'
    const error = guestError('', `the guest's process ${how}`)
    for (const id of [...this.#waiting.keys()]) this.#settle(id)?.reject(error)
    this.#gone.abort(error)
  }
}

function guestError(subject: string, what: string): VmError {
  return new VmError({ code: 'NOT_READY', op: 'guest', subject, what, next: 'Reconcile to boot another guest.' })
}

function exitOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(signal ? `ended by ${signal}` : `ended with status ${code}`))
    child.on('error', (error) => {
      // An exit follows, unless there never was a process.
      if (child.pid === undefined) resolve(`could not be started: ${textOf(error)}`)
    })
  })
}

function closeOf(stream: Readable): Promise<void> {
  return new Promise((resolve) => {
    // 'close' follows an error.
    stream.on('error', () => {}).once('close', resolve)
  })
}
