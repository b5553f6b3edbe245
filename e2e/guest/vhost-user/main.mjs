// Runs in the guest: services on AF_VSOCK, and what the host commands.
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { connect, listen } from '@upcall/vsock'
import { obey, tell } from './commands.mjs'
import { answer, BUFFER_SIZES, connectMany, exchange, makeNoise } from './exchange.mjs'

let release
let released = new Promise((resolve) => (release = resolve))
/** Bytes that this end has handed to its sockets. */
let sent = 0
let failures = 0

makeNoise()
await service(5000, (socket) => socket.pipe(socket))
await service(5001, exchanged)
// The same on sockets whose buffers are not the kernel's default: 5100 of 4 KiB, 5101 of 8 KiB, and so on.
for (const [i, bufferSize] of BUFFER_SIZES.entries()) await service(5100 + i, exchanged, { bufferSize })
// Another program's service, for other programs' clients.
spawn('socat', ['VSOCK-LISTEN:5002,fork', 'EXEC:cat'], { stdio: 'inherit' })

const commands = {
  async exchange({ port, bufferSize, ...how }) {
    const socket = await dial(port, { bufferSize })
    socket.on('error', () => {})
    return exchange(socket, { ...how, onSent: (count) => (sent += count) })
  },
  /** Connects, waits for what becomes of the connection, and tells. */
  async fate({ port }) {
    const socket = await dial(port)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    const fate = { ended: false }
    socket
      .on('end', () => (fate.ended = true))
      .on('error', ({ code, syscall }) => Object.assign(fate, { code, syscall }))
      .resume()
    tell({ event: 'waiting' })
    await closed
    return fate
  },
  async counted() {
    while (counts.length === 0) await new Promise((resolve) => (counted = resolve))
    return counts.shift()
  },
  /** A program that shuts its receiving half and streams on; `event` tells that it listens, the answer how much it sent. */
  async halfDeaf({ port, seconds }) {
    const child = spawn(new URL('half-deaf', import.meta.url).pathname, [port, seconds], { stdio: ['ignore', 'pipe', 'inherit'] })
    let last
    for await (const line of createInterface({ input: child.stdout })) {
      last = line
      if (line === 'listening') tell({ event: 'half-deaf listens' })
    }
    return { sent: Number(last) }
  },
  /** messages.c; `event` tells that it listens, the answer what it said last. */
  async messages({ mode, port, seconds }) {
    const child = spawn(new URL('messages', import.meta.url).pathname, [mode, port, seconds], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let last
    for await (const line of createInterface({ input: child.stdout })) {
      last = line
      if (line === 'listening') tell({ event: 'messages listens' })
    }
    return { last }
  },
  connects: ({ port, count, width }) => connectMany(count, width, () => dial(port)),
  state: () => ({ sent, failures, descriptors: readdirSync('/proc/self/fd').length }),
  release() {
    release()
    released = new Promise((resolve) => (release = resolve))
  },
  /** Brings hotplugged memory into use and tells the megabytes there are. */
  memory() {
    const blocks = '/sys/devices/system/memory'
    for (const name of readdirSync(blocks).filter((name) => /^memory\d+$/.test(name))) {
      if (readFileSync(`${blocks}/${name}/state`, 'utf8').trim() === 'offline') writeFileSync(`${blocks}/${name}/state`, 'online')
    }
    return { megabytes: Math.round(Number(/MemTotal: +(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))[1]) / 1024) }
  },
}

/** What came of each connection to 5003, which only listens: how many bytes before its end. */
const counts = []
let counted = () => {}
await service(5003, async (socket) => {
  const count = { bytes: 0 }
  try {
    for await (const chunk of socket) count.bytes += chunk.length
  } catch ({ code }) {
    count.code = code
  }
  counts.push(count)
  counted()
})

obey(commands)

async function exchanged(socket) {
  try {
    const done = await answer(socket, { released: () => released, onSent: (count) => (sent += count) })
    tell({ event: 'answered', ...done })
  } catch (error) {
    failures++
    tell({ event: 'failed', message: error.message, code: error.code })
    socket.destroy()
  }
}

async function service(port, serve, vsock = {}) {
  const server = await listen(`vsock://any:${port}`, { maxPending: 1024, allowHalfOpen: true, vsock })
  server.on('connection', (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
}

function dial(port, vsock = {}) {
  return connect(`vsock://host:${port}`, { timeoutMs: 20_000, allowHalfOpen: true, vsock })
}
