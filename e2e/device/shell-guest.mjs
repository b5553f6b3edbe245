// A guest that does what the host's shell lines say: nothing runs in it but the stock kernel, sh and socat.
import { EventEmitter, once } from 'node:events'
import { startInGuest } from '@upcall/qemu'
import { consoleLog } from '../guest-tests.mjs'

const CONTROL = 'org.upcall.control'
const LINE_MS = 60_000
/** Each line in a shell of its own, so that a line that waits holds up no other. */
const LOOP = `while read -r id line; do
  (answer=$(sh -c "$line" 2>&1); echo "@$id $? $(printf %s "$answer" | base64 -w 0)") </dev/null &
done <>/dev/virtio-ports/${CONTROL}`

export class ShellGuest {
  #run
  #port
  #answers = new EventEmitter()
  #nextId = 1

  /** @param socketPath - Where its vsock device listens. */
  static async start({ image, name, socketPath }) {
    const guest = new ShellGuest()
    guest.#run = await startInGuest({
      ...{ image, command: ['sh', '-c', LOOP], onLine: (line) => guest.#hear(line), ports: [CONTROL] },
      ...{ memory: '256M', sharedMemory: true, cpus: 1, log: consoleLog(name), timeoutMs: 600_000 },
      // As the README of vhost-device-vsock has it.
      chardevs: [`socket,id=char0,reconnect=0,path=${socketPath}`],
      devices: ['vhost-user-vsock-pci,chardev=char0'],
    })
    guest.#port = guest.#run.guest.port(CONTROL).on('error', () => {})
    return guest
  }

  /** Runs a shell line and resolves with its status and what it wrote, or rejects when that takes too long. */
  async sh(line, { timeoutMs = LINE_MS } = {}) {
    const id = this.#nextId++
    const answer = once(this.#answers, `${id}`, { signal: AbortSignal.timeout(timeoutMs) })
    this.#port.write(`${id} ${line}\n`)
    const [{ status, text }] = await answer
    return { status, text }
  }

  async close() {
    await this.#run?.close()
  }

  #hear(line) {
    const [, id, status, text] = /^@(\d+) (\d+) (.*)$/.exec(line) ?? []
    if (id === undefined) console.log(`# guest: ${line}`)
    else this.#answers.emit(id, { status: Number(status), text: String(Buffer.from(text, 'base64')) })
  }
}
