import { createInterface } from 'node:readline'
import { type Duplex, duplexPair } from 'node:stream'
import { SkippingClock } from '@upcall/foundation/testing/skipping-clock'
import { type QemuExit, QmpClient } from '@upcall/qemu'
import type { RunningQemu } from '../src/qemu/guest-life.js'

/** The answer to a command that is never answered, and whose time is over at once. */
export const OVERDUE = new Promise<never>(() => {})

/** Answers a command; what it throws is QEMU's refusal. A promise is never answered: what waits for it has its time, or see {@link OVERDUE}. */
export type Answer = (args: Record<string, unknown>) => unknown

/** How long a command may take that is never answered. */
const COMMAND_MS = 20_000
const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } }

/** A QEMU that is a monitor and a list of what it was told. */
export class FakeQemu implements RunningQemu {
  readonly pid = 4711
  readonly commands: { execute: string; arguments: Record<string, unknown> }[] = []
  readonly exited: Promise<QemuExit>
  qmp!: QmpClient
  readonly #answers: Record<string, Answer>
  readonly #monitor: Duplex
  readonly #clock = new SkippingClock()
  #exit!: (exit: QemuExit) => void

  static async start(answers: Record<string, Answer> = {}): Promise<FakeQemu> {
    const [ours, theirs] = duplexPair()
    const qemu = new FakeQemu(theirs, answers)
    qemu.qmp = await QmpClient.over(ours, { timeoutMs: COMMAND_MS, clock: qemu.#clock })
    return qemu
  }

  private constructor(monitor: Duplex, answers: Record<string, Answer>) {
    this.#monitor = monitor
    this.#answers = answers
    this.exited = new Promise((resolve) => {
      this.#exit = resolve
    })
    this.#send(GREETING)
    createInterface({ input: monitor }).on('line', (line) => this.#obey(JSON.parse(line)))
  }

  emit(event: string, data: object = {}): void {
    this.#send({ event, data, timestamp: { seconds: 0, microseconds: 0 } })
  }

  /** The names of the commands that changed something, in order. */
  get changes(): string[] {
    return this.commands.map(({ execute }) => execute).filter((name) => !name.startsWith('query-'))
  }

  closed = false
  onClose: (() => void | Promise<void>) | undefined

  die(): void {
    this.qmp.close()
    this.#exit({ code: null, signal: 'SIGKILL', output: '' })
  }

  async close(): Promise<void> {
    this.closed = true
    await this.onClose?.()
    this.qmp.close()
    this.#exit({ code: 0, signal: null, output: '' })
  }

  #obey({ execute, arguments: args = {}, id }: { execute: string; arguments?: Record<string, unknown>; id: number }): void {
    if (execute === 'qmp_capabilities') {
      this.#send({ return: {}, id })
      return
    }
    this.commands.push({ execute, arguments: args })
    try {
      const answer = this.#answers[execute]?.(args) ?? defaultAnswer(execute)
      if (!(answer instanceof Promise)) this.#send({ return: answer, id })
      else if (answer === OVERDUE) this.#clock.skip(COMMAND_MS)
    } catch (error) {
      const { errorClass = 'GenericError', message: desc } = error as Error & { errorClass?: string }
      this.#send({ error: { class: errorClass, desc }, id })
    }
  }

  #send(message: object): void {
    this.#monitor.write(`${JSON.stringify(message)}\r\n`)
  }
}

function defaultAnswer(execute: string): unknown {
  return execute.startsWith('query-') ? [] : {}
}
