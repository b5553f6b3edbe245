// Runs in the guest, between the host's test and one peer: another's program, or a socket of @upcall/vsock. Commands come over a virtio
// port; events and answers are JSON lines on stdout.
import { spawn } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { connect, listen } from '@upcall/vsock'
import { takeSteps } from './steps.mjs'

const DIAL_MS = 20_000
/** What came of what still runs, by number. */
const outcomes = new Map()

const commands = {
  /** Starts another's program. The answer is its number, which comes when it listens, or at once for a program that dials. */
  async program({ argv, listens }) {
    const child = spawn(argv[0], argv.slice(1), { cwd: import.meta.dirname, stdio: ['ignore', 'pipe', 'inherit'] })
    let listening
    const listened = new Promise((resolve) => (listening = resolve))
    const done = told(child, listening)
    const id = keep(done)
    if (listens) await Promise.race([listened, done])
    return { id }
  },
  /** Listens for one connection, which takes those steps. */
  async serve({ port, steps }) {
    const server = await listen(`vsock://any:${port}`, { allowHalfOpen: true })
    const done = new Promise((resolve, reject) => {
      server.once('connection', (socket) => {
        void server.close()
        // The reading program decides when the socket ends.
        takeSteps(socket, steps).then(resolve, reject)
      })
    })
    return { id: keep(done) }
  },
  async dial({ cid, port, steps }) {
    try {
      const socket = await connect(`vsock://${cid}:${port}`, { allowHalfOpen: true, timeoutMs: DIAL_MS })
      return await takeSteps(socket, steps)
    } catch ({ code }) {
      return { error: { step: 'connect', code } }
    }
  },
  outcome: ({ of }) => outcomes.get(of),
}

function keep(done) {
  const id = outcomes.size
  outcomes.set(id, done)
  done.catch(() => {})
  return id
}

async function told(child, listening) {
  const failed = new Promise((_, reject) => child.once('error', reject))
  const read = (async () => {
    let outcome
    for await (const line of createInterface({ input: child.stdout })) {
      const told = JSON.parse(line)
      if (told.event === 'listening') listening()
      else if (told.event === 'done') outcome = told.outcome
    }
    if (outcome === undefined) throw new Error('the program ended without a word')
    return outcome
  })()
  return Promise.race([failed, read])
}

createInterface({ input: createReadStream('/dev/virtio-ports/org.upcall.control') }).on('line', (line) => void obey(line))
tell({ event: 'ready' })

/** Runs the command of one line and tells its value, or why there is none. */
async function obey(line) {
  const { id, run, ...options } = JSON.parse(line)
  try {
    tell({ id, value: (await commands[run](options)) ?? null })
  } catch (error) {
    tell({ id, error: error.message, code: error.code })
  }
}

function tell(value) {
  console.log(JSON.stringify(value))
}
