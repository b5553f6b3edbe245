import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

const DEADLINE_MS = 60_000

/** A process on the host that reads lines, and writes JSON lines. The last lines of its stderr come with each failure. */
export class Program {
  #child
  #ended
  #values = []
  #told = () => {}
  #stderr = ''
  #over = false

  constructor(command, args, { env } = {}) {
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } })
    this.#child.stdin.on('error', () => {})
    this.#child.stderr.on('data', (chunk) => (this.#stderr = `${this.#stderr}${chunk}`.slice(-2000)))
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.#values.push(parse(line))
      this.#told()
    })
    this.#ended = once(this.#child, 'close').finally(() => {
      this.#over = true
      this.#told()
    })
    this.#ended.catch((error) => (this.#stderr += error.message))
  }

  /** Writes one line, and resolves with the next value. */
  async ask(line, options) {
    this.#child.stdin.write(`${JSON.stringify(line)}\n`)
    return this.next(() => true, options)
  }

  /** The next value that `accepts` takes; those before it are dropped. */
  async next(accepts = () => true, { timeoutMs = DEADLINE_MS } = {}) {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      while (this.#values.length > 0) {
        const value = this.#values.shift()
        if (accepts(value)) return value
      }
      const left = deadline - performance.now()
      if (this.#over || left <= 0)
        throw new Error(`${this.#child.spawnfile}: ${this.#over ? 'ended' : 'silent'}; ${this.#stderr}`)
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#told = () => resolve(clearTimeout(timer))
      })
    }
  }

  async stop() {
    if (!this.#over) this.#child.kill('SIGKILL')
    await this.#ended.catch(() => {})
  }
}

function parse(line) {
  try {
    return JSON.parse(line)
  } catch {
    return { text: line }
  }
}
