import { createInterface } from 'node:readline'
import { type Duplex, duplexPair } from 'node:stream'
import { type QemuExit, QmpClient } from '@upcall/qemu'
import type { RunningQemu } from '../qemu/machine.js'

/** Answers a command; what it throws is QEMU's refusal. */
export type Answer = (args: Record<string, unknown>) => unknown

const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } }

/** A QEMU that is a monitor and a list of what it was told. */
export class FakeQemu implements RunningQemu {
  readonly pid = 4711
  readonly commands: { execute: string; arguments: Record<string, unknown> }[] = []
  readonly exited: Promise<QemuExit>
  qmp!: QmpClient
  readonly #answers: Record<string, Answer>
  readonly #monitor: Duplex
  #exit!: (exit: QemuExit) => void

  static async start(answers: Record<string, Answer> = {}): Promise<FakeQemu> {
    const [ours, theirs] = duplexPair()
    const qemu = new FakeQemu(theirs, answers)
    qemu.qmp = await QmpClient.over(ours)
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

  die(): void {
    this.qmp.close()
    this.#exit({ code: null, signal: 'SIGKILL', output: '' })
  }

  async close(): Promise<void> {
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
      this.#send({ return: this.#answers[execute]?.(args) ?? defaultAnswer(execute), id })
    } catch (error) {
      this.#send({ error: { class: 'GenericError', desc: (error as Error).message }, id })
    }
  }

  #send(message: object): void {
    this.#monitor.write(`${JSON.stringify(message)}\r\n`)
  }
}

function defaultAnswer(execute: string): unknown {
  return execute.startsWith('query-') ? [] : {}
}
