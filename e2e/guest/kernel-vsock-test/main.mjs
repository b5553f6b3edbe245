// Runs in the guest: vsock_test and vsock_perf. Two ends of vsock_test agree on each step over a TCP connection, line by line. It ends
// here, on the loopback device, and goes on over the virtio port: so it does not depend on the vsock device that is tested.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, connect as netConnect } from 'node:net'
import { PassThrough } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { obey, tell } from './commands.mjs'

const LOOPBACK = '127.0.0.1'
/** The TCP port that each end is told. Both may run in one guest. */
const PORTS = { server: 1234, client: 1235 }
const OPEN_MS = 20_000

/** What each end is to read from its TCP connection, and the end itself, by mode. */
const inboxes = new Map()
const children = new Map()

obey({
  /** Runs one end of vsock_test. What it prints comes as events. Resolves with how it ended, when nothing more comes of it. */
  async vsockTest({ mode, args, timeoutMs }) {
    const over = new AbortController()
    const port = PORTS[mode]
    // The other end may speak before this one is there.
    const inbox = new PassThrough()
    inboxes.set(mode, inbox)
    const open = mode === 'client' ? await accepting(port, over.signal) : () => dial(port, over.signal)
    const control = [`--control-host=${LOOPBACK}`, `--control-port=${port}`]
    const child = start(['./vsock_test', `--mode=${mode}`, ...control, ...args], timeoutMs)
    children.set(mode, child)
    child.stdout.on('data', (text) => tell({ event: 'output', mode, text }))
    const closed = open().then(
      (socket) => join(mode, socket, inbox),
      () => child.kill('SIGKILL'),
    )
    const [status, signal] = await once(child, 'close')
    over.abort()
    inbox.end()
    await closed
    return { status: status ?? signal }
  },
  /** What the other end wrote to its control connection. */
  control({ mode, text }) {
    inboxes.get(mode).write(text)
  },
  /** The other end has ended: so does this one, at its next word. */
  controlEnded({ mode }) {
    inboxes.get(mode).end()
  },
  stop: ({ mode }) => void children.get(mode).kill('SIGKILL'),
  /** Runs one end of vsock_perf and resolves with what it printed. A sender dials until the receiver listens. */
  async vsockPerf({ args, timeoutMs }) {
    for (const deadline = performance.now() + OPEN_MS; ; await delay(50)) {
      const child = start(['./vsock_perf', ...args], timeoutMs)
      let output = ''
      child.stdout.on('data', (text) => (output += text))
      const [status, signal] = await once(child, 'close')
      if (status === 0) return { output }
      if (!/^connect: /m.test(output) || performance.now() > deadline)
        throw new Error(`vsock_perf: ${status ?? signal}: ${output}`)
    }
  },
})

/** With stderr on stdout, so that both come in the order in which they were written. */
function start(command, timeoutMs) {
  const child = spawn('sh', ['-c', 'exec "$@" 2>&1', 'sh', ...command], {
    ...{ stdio: ['ignore', 'pipe', 'inherit'], timeout: timeoutMs, killSignal: 'SIGKILL' },
  })
  child.stdout.setEncoding('utf8')
  return child
}

/** Resolves when the connection is closed. */
async function join(mode, socket, inbox) {
  socket.setEncoding('utf8').setNoDelay()
  socket.on('error', () => {})
  socket.on('data', (text) => tell({ event: 'control', mode, text }))
  inbox.on('error', () => {}).pipe(socket)
  await new Promise((resolve) => socket.once('close', resolve))
  tell({ event: 'control ended', mode })
}

/** The client dials: the port is open before it is started. */
async function accepting(port, signal) {
  const server = createServer()
  await once(server.listen(port, LOOPBACK), 'listening')
  signal.addEventListener('abort', () => server.close())
  return async () => (await once(server, 'connection', { signal }))[0]
}

/** The server listens as soon as it can. */
async function dial(port, signal) {
  for (const deadline = performance.now() + OPEN_MS; ; await delay(20)) {
    const socket = netConnect(port, LOOPBACK)
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      if (signal.aborted || performance.now() > deadline) throw error
    }
  }
}
