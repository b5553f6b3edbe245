// vmm-shim as people run it: a process with a guest under QEMU, its API, its vsock socket and its monitor.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { connectQmp } from '@upcall/qemu'
import { connect } from '@upcall/vsock'

export const MAIN = fileURLToPath(new URL('../../apps/vmm-shim/dist/main.js', import.meta.url))
const AGENT_PORT = 10219
const RUNNING_MS = 180_000
const CALL_MS = 150_000

export class ShimProcess {
  #args
  #paths
  #child
  #ended
  #stderr = []
  #console
  #path
  #listeners = new Set()
  qemuPid

  /** `path` is searched for programs before the PATH. */
  constructor({ directory, machine, args, path }) {
    this.machine = machine
    this.#path = path
    const [uds, api, monitor] = ['vm', 'api', 'monitor'].map((name) => join(directory, `${machine}-${name}.sock`))
    this.#paths = { uds, api, monitor }
    this.#console = join(directory, `${machine}.log`)
    const paths = Object.entries({ ...this.#paths, console: this.#console }).flatMap(([name, path]) => [`--${name}`, path])
    this.#args = ['run', '--qemu', '--machine', machine, ...paths, ...args]
  }

  get target() {
    return `hvsock://${this.#paths.uds}:219`
  }

  /** Resolves when the guest serves upcalls. */
  async start() {
    this.launch()
    await this.running()
  }

  launch() {
    const PATH = [...(this.#path ? [this.#path] : []), process.env.PATH].join(':')
    // The client's own log says when a request is written.
    const env = { ...process.env, PATH, NODE_DEBUG: 'upcall-client' }
    const child = spawn(process.execPath, [MAIN, ...this.#args], { stdio: ['ignore', 'ignore', 'pipe'], env })
    this.#child = child
    // Its output is read to the end by then.
    this.#ended = once(child, 'close')
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (!/^(UPCALL-CLIENT \d+:|[\s}\]])/.test(line)) this.#stderr.push(line)
      this.qemuPid = /"qemu":(\d+),"msg":"QEMU runs"/.exec(line)?.[1] ?? this.qemuPid
      for (const listener of this.#listeners) listener(line)
    })
  }

  /** Lines of its stderr but for its client's. */
  get log() {
    return this.#stderr
  }

  /** Resolves when a line of its stderr that comes after this call matches. */
  async logs(pattern) {
    let seen = false
    const listener = (line) => {
      seen ||= pattern.test(line)
    }
    this.#listeners.add(listener)
    try {
      await this.until(async () => seen)
    } finally {
      this.#listeners.delete(listener)
    }
  }

  /** Resolves when the guest's console prints that after this call. */
  async prints(text) {
    const from = readFileSync(this.#console, 'utf8').length
    await this.until(async () => readFileSync(this.#console, 'utf8').slice(from).includes(text))
  }

  /** Resolves with its exit status. */
  async ended(timeoutMs) {
    const late = delay(timeoutMs, undefined, { ref: false }).then(() => {
      throw new Error(`vmm-shim has not ended after ${timeoutMs} ms`)
    })
    const [status] = await Promise.race([this.#ended, late])
    return status
  }

  get sockets() {
    return Object.values(this.#paths)
  }

  signal(signal) {
    this.#child.kill(signal)
  }

  async running() {
    await this.until(async () => (await this.call('GET', '/vm')).body.state === 'running')
  }

  async until(holds) {
    const deadline = performance.now() + RUNNING_MS
    for (;;) {
      if (await holds().catch(() => false)) return
      const { exitCode, signalCode } = this.#child
      if (exitCode !== null)
        throw new Error(`vmm-shim ended with ${exitCode ?? signalCode}:\n${this.#stderr.slice(-10).join('\n')}`)
      if (performance.now() > deadline) throw new Error(`not within ${RUNNING_MS} ms:\n${this.#stderr.slice(-10).join('\n')}`)
      await delay(250)
    }
  }

  call(method, path, body) {
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(CALL_MS)
      const outgoing = request({ socketPath: this.#paths.api, method, path, signal, agent: false }, (response) => {
        const answer = (text) => ({ status: response.statusCode, body: text === '' ? undefined : JSON.parse(text) })
        readAll(response).then(answer).then(resolve, reject)
      })
      outgoing.on('error', reject)
      outgoing.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  /** Runs a program in the guest, by the program in the default image. */
  async execute(argv, timeoutMs = 60_000) {
    const socket = await connect(`hvsock://${this.#paths.uds}:${AGENT_PORT}`, { timeoutMs: 10_000 })
    socket.setTimeout(timeoutMs + 10_000, () => socket.destroy(new Error(`no answer to ${argv}`)))
    socket.write(`${JSON.stringify({ ask: 'execute', argv, timeoutMs })}\n`)
    const { ok, error } = JSON.parse(await readAll(socket))
    if (error !== undefined) throw new Error(error)
    return ok
  }

  /** Something to do over QEMU's own monitor. */
  async monitor(act) {
    const qmp = await connectQmp(this.#paths.monitor)
    try {
      return await act(qmp)
    } finally {
      qmp.close()
    }
  }

  async kill() {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  async stop() {
    if (!this.#child || this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.kill('SIGTERM')
    await this.#ended
  }
}

async function readAll(stream) {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}
