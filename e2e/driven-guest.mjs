// A guest that does what this program says: guest/linux-guest runs in it, `ask` is one question and its answer.
import { setTimeout as delay } from 'node:timers/promises'
import { startInGuest } from '@upcall/qemu'

const PORT = 'org.upcall.driver'
const ANSWER_MS = 40_000
/** A root port waits for five seconds whether the button is pressed again. */
const UNPLUG_MS = 30_000

export class DrivenGuest {
  #run
  #waiting = new Map()
  #asked = 0

  static async start({ serve = [], ...options }) {
    const guest = new DrivenGuest()
    guest.machine = options.machine
    guest.#run = await startInGuest({
      ...{ command: ['node', 'main.mjs', ...serve], ports: [PORT], timeoutMs: 300_000, ...options },
      onLine: (line) => guest.#answered(JSON.parse(line)),
    })
    guest.#run.result.catch((error) => {
      for (const { reject } of guest.#waiting.values()) reject(error)
    })
    try {
      await guest.ask('ready')
    } catch (error) {
      await guest.close()
      throw error
    }
    return guest
  }

  get console() {
    return this.#run.guest.console.text
  }

  /** One of the actions of guest/linux-guest/main.mjs; rejects with what it failed with. */
  ask(action, fields = {}) {
    const id = ++this.#asked
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => this.#answered({ id, error: { message: `no answer to ${action} in ${ANSWER_MS} ms` } }),
        ANSWER_MS,
      )
      this.#waiting.set(id, { resolve, reject, timer })
      this.#run.guest.port(PORT).write(`${JSON.stringify({ id, action, ...fields })}\n`)
    })
  }

  read(path) {
    return this.ask('read', { path })
  }

  /** Waits for a file to appear. */
  async sees(path, timeoutMs = 10_000) {
    for (const deadline = performance.now() + timeoutMs; ; await delay(50)) {
      const text = await this.read(path).catch(() => undefined)
      if (text) return
      if (performance.now() > deadline) throw new Error(`guest: no ${path} after ${timeoutMs} ms`)
    }
  }

  qmp(command, fields) {
    return this.#run.guest.qmp.execute(command, fields)
  }

  /** Takes a device away and waits until it is gone. */
  async unplug(id) {
    const gone = this.#run.guest.qmp.nextEvent('DEVICE_DELETED', {
      timeoutMs: UNPLUG_MS,
      accepts: ({ data }) => data.device === id,
    })
    gone.catch(() => {})
    await this.qmp('device_del', { id })
    await gone
  }

  async close() {
    for (const { timer } of this.#waiting.values()) clearTimeout(timer)
    await this.#run.close()
  }

  #answered({ id, error, ...answer }) {
    const asked = this.#waiting.get(id)
    if (!asked) return
    this.#waiting.delete(id)
    clearTimeout(asked.timer)
    if (error) asked.reject(Object.assign(new Error(`guest: ${error.message}`), { guest: error }))
    else asked.resolve(answer)
  }
}
