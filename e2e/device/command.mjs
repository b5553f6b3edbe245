import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { UPCALL } from '../upcall.mjs'
import { until } from '../vhost-user/scene.mjs'

/** `upcall vsock device`, as a process of its own. */
export class DeviceCommand {
  #child
  #ended
  #stderr = ''
  #over = false
  events = []

  constructor(args) {
    this.#child = spawn(process.execPath, [UPCALL, '--json', 'vsock', 'device', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.events.push(JSON.parse(line)))
    this.#child.stderr.on('data', (chunk) => (this.#stderr = `${this.#stderr}${chunk}`.slice(-2000)))
    this.#ended = once(this.#child, 'close')
    this.#ended
      .catch(() => {})
      .finally(() => {
        this.#over = true
      })
  }

  get pid() {
    return this.#child.pid
  }

  /** The first event of that kind after the `from` first ones. */
  async event(name, accepts = () => true, from = 0) {
    const find = () => this.events.slice(from).find((event) => event.event === name && accepts(event))
    await this.#until(`event ${name}`, () => find() !== undefined)
    return find()
  }

  /** All devices listen. */
  async listening(count) {
    await this.#until(`${count} devices`, () => this.events.filter(({ event }) => event === 'listening').length === count)
  }

  hangUp() {
    this.#child.kill('SIGHUP')
  }

  /** SIGTERM, and the exit status. */
  async stop() {
    this.#child.kill('SIGTERM')
    const [status] = await this.#ended
    return status
  }

  async kill() {
    this.#child.kill('SIGKILL')
    await this.#ended.catch(() => {})
  }

  async #until(what, holds) {
    const told = () => `${what}: ${this.#stderr}${JSON.stringify(this.events.slice(-5))}`
    try {
      await until(what, () => holds() || this.#over)
    } catch (cause) {
      throw new Error(told(), { cause })
    }
    if (!holds()) throw new Error(`the command has ended; ${told()}`)
  }
}
