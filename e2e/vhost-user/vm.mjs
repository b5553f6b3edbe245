import { EventEmitter, once } from 'node:events'
import { startInGuest } from '@upcall/qemu'

const CONTROL = 'org.upcall.control'
const QMP_MS = 30_000

/**
 * A guest whose vsock is the vhost-user device at `socketPath` (without it, the guest has none), with the program main.mjs of `payloadDir`
 * running in it: that of guest/vhost-user, or another that obeys as guest/commands.mjs does.
 */
export class Vm {
  #run
  #port
  #events = new EventEmitter()
  #nextId = 1

  static async start({ image, payloadDir, socketPath, signal, log, maxCpus, modules, timeoutMs = 600_000 }) {
    const vm = new Vm()
    const ready = vm.event('ready', { timeoutMs: 120_000 })
    ready.catch(() => {})
    vm.#run = await startInGuest({
      ...{ image, payloadDir, signal, command: ['node', 'main.mjs'], onLine: (line) => vm.#onLine(line) },
      ...{ memory: '512M', sharedMemory: true, cpus: 1, maxCpus, reboot: true, log },
      ...(image.arch === 'x86_64' && { machine: 'q35', maxMemory: { slots: 10, size: '2G' } }),
      ...(socketPath !== undefined && {
        chardevs: [`socket,id=vsock,path=${socketPath}`],
        // Only devices behind a root port can be plugged, on a q35 and on a virt.
        devices: ['pcie-root-port,id=port1,chassis=1', 'vhost-user-vsock-pci,chardev=vsock,id=vsock0,bus=port1'],
      }),
      ...{ ports: [CONTROL], modules },
      ...{ bootTimeoutMs: 120_000, silenceTimeoutMs: 30_000, timeoutMs },
    })
    vm.#port = vm.#run.guest.port(CONTROL)
    vm.#port.on('error', () => {})
    try {
      await Promise.race([ready, vm.#run.result.then(() => Promise.reject(new Error('the guest program ended')))])
      return vm
    } catch (error) {
      await vm.close()
      throw error
    }
  }

  get pid() {
    return this.#run.guest.pid
  }

  get console() {
    return this.#run.guest.console
  }

  qmp(command, args) {
    return this.#run.guest.qmp.execute(command, args, { timeoutMs: QMP_MS })
  }

  qmpEvent(name) {
    return this.#run.guest.qmp.nextEvent(name, { timeoutMs: QMP_MS })
  }

  /** Runs a command of the guest program and resolves with its answer. */
  async run(command, options = {}, { timeoutMs = 120_000 } = {}) {
    const id = this.#nextId++
    const [answer] = await this.#ask(id, { id, run: command, ...options }, timeoutMs)
    if (answer.error !== undefined) throw Object.assign(new Error(`guest ${command}: ${answer.error}`), { code: answer.code })
    return answer.value
  }

  /** The next event that the guest program tells of. */
  async event(name, { timeoutMs = 60_000 } = {}) {
    const [event] = await once(this.#events, name, { signal: AbortSignal.timeout(timeoutMs) })
    return event
  }

  /** Calls `listener` for each event of that name. */
  on(name, listener) {
    this.#events.on(name, listener)
  }

  off(name, listener) {
    this.#events.off(name, listener)
  }

  /** QEMU ends at once, without a word to anybody. */
  async kill() {
    this.#run.guest.kill()
    await this.#run.guest.exited
  }

  async close() {
    await this.#run?.close()
  }

  async #ask(id, message, timeoutMs) {
    const answer = once(this.#events, `answer ${id}`, { signal: AbortSignal.timeout(timeoutMs) })
    this.#port.write(`${JSON.stringify(message)}\n`)
    return answer
  }

  #onLine(line) {
    let value
    try {
      value = JSON.parse(line)
    } catch {
      console.log(`# guest: ${line}`)
      return
    }
    this.#events.emit(value.event ?? `answer ${value.id}`, value)
  }
}
