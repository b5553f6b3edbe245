// Between the host and a guest under QEMU (tcg), through the vhost-user device of this process; and the same bytes through a Unix socket
// alone, to another process. Needs QEMU and Debian's tools; the first run makes the guest image.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildGuestImage, startInGuest } from '@upcall/qemu'
import { createVsockDevice } from '@upcall/vhost-user'
import { listenHybrid } from '@upcall/vsock'

const here = fileURLToPath(import.meta.url)
const GIB = 2 ** 30
const BULK = 256 * 2 ** 20
const BLOCK = 64 * 1024
const ROUNDS = 2_000
/** Clock ticks of /proc/<pid>/stat: 100 a second on every Linux that Node runs on. */
const TICKS = 100

const PORTS = { echo: 5000, discard: 5001, source: 5002 }
/** In the guest everything is socat, which costs the emulated CPU least. */
const SERVICES = [
  `socat VSOCK-LISTEN:${PORTS.echo},fork PIPE &`,
  `socat -u -b ${BLOCK} VSOCK-LISTEN:${PORTS.discard},fork OPEN:/dev/null &`,
  `socat -U -b ${BLOCK} VSOCK-LISTEN:${PORTS.source},fork OPEN:/dev/zero,readbytes=${BULK} &`,
  'sleep 1; echo ready; wait',
].join('\n')

export async function bench() {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-bench-'))
  const peer = fork(here, ['--peer', folder], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  let guest
  let device
  let hybrid
  try {
    await once(peer, 'message')
    const image = await buildGuestImage({ cacheDir: fileURLToPath(new URL('../../.cache/guest', import.meta.url)) })
    device = await createVsockDevice({ socketPath: join(folder, 'vhost'), guestCid: 42 })
    hybrid = await listenHybrid({ path: join(folder, 'vsock'), route: (port, { signal }) => device.connect(port, { signal }) })
    guest = await startGuest(image, join(folder, 'vhost'))
    await device.ready({ signal: AbortSignal.timeout(10_000) })

    const unix = (name) => connected(netConnect({ path: join(folder, name), allowHalfOpen: true }))
    const direct = (name) => device.connect(PORTS[name])
    const through = async (name) => {
      const socket = netConnect({ path: join(folder, 'vsock'), allowHalfOpen: true })
      socket.write(`CONNECT ${PORTS[name]}\n`)
      await once(socket, 'readable')
      socket.read()
      return socket
    }
    const ways = [
      ['a Unix socket alone (baseline)', unix, peer.pid],
      ['guest, device.connect()', direct, guest.guest.pid],
      ['guest, CONNECT on the hybrid socket', through, guest.guest.pid],
    ]
    const rows = []
    for (const [name, dial, pid] of ways) rows.push(await measure(name, dial, pid))
    return rows
  } finally {
    await guest?.close()
    await hybrid?.close()
    await device?.close()
    peer.kill()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function measure(name, dial, pid) {
  const rounds = await roundTrips(await dial('echo'))
  const there = await cpu(pid, () => send(dial))
  const back = await cpu(pid, () => receive(dial))
  return {
    way: name,
    '1 KiB round trip, µs: median': rounds[ROUNDS / 2].toFixed(0),
    '99 %': rounds[Math.floor(ROUNDS * 0.99)].toFixed(0),
    'there, MiB/s': there.rate,
    'back, MiB/s': back.rate,
    'CPU s per GiB, this process: there': there.own,
    back: back.own,
    'the other: there': there.other,
    ' back': back.other,
  }
}

/** Microseconds, sorted. */
async function roundTrips(socket) {
  const message = Buffer.alloc(1024)
  const times = []
  for (let i = -ROUNDS / 10; i < ROUNDS; i++) {
    const start = performance.now()
    socket.write(message)
    for (let got = 0; got < message.length; ) {
      const chunk = socket.read()
      if (chunk === null) await once(socket, 'readable')
      else got += chunk.length
    }
    if (i >= 0) times.push((performance.now() - start) * 1000)
  }
  socket.destroy()
  return times.sort((a, b) => a - b)
}

async function send(dial) {
  const socket = await dial('discard')
  const block = Buffer.alloc(BLOCK)
  for (let sent = 0; sent < BULK; sent += BLOCK) if (!socket.write(block)) await once(socket, 'drain')
  socket.end()
  // The other end has read everything when it closes.
  socket.resume()
  await once(socket, 'end')
  socket.destroy()
}

async function receive(dial) {
  const socket = await dial('source')
  let received = 0
  socket.on('data', (chunk) => (received += chunk.length))
  await once(socket, 'end')
  socket.destroy()
  if (received !== BULK) throw new Error(`${received} bytes came, not ${BULK}`)
}

/** Rate, and the CPU time of this process and of another. */
async function cpu(pid, run) {
  const before = { own: process.cpuUsage(), other: cpuSeconds(pid), at: performance.now() }
  await run()
  const seconds = (performance.now() - before.at) / 1000
  const { user, system } = process.cpuUsage(before.own)
  const perGib = (value) => ((value * GIB) / BULK).toFixed(2)
  return {
    rate: (BULK / 2 ** 20 / seconds).toFixed(0),
    own: perGib((user + system) / 1e6),
    other: perGib(cpuSeconds(pid) - before.other),
  }
}

function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}

async function startGuest(image, path) {
  let ready
  const listening = new Promise((resolve) => (ready = resolve))
  const guest = await startInGuest({
    ...{ image, command: ['sh', '-c', SERVICES], onLine: (line) => line === 'ready' && ready() },
    ...{ machine: 'q35', memory: '512M', sharedMemory: true, cpus: 1, deadlineMs: 600_000, bootDeadlineMs: 120_000 },
    chardevs: [`socket,id=vsock,path=${path}`],
    devices: ['vhost-user-vsock-pci,chardev=vsock'],
  })
  await Promise.race([listening, guest.result])
  return guest
}

async function connected(socket) {
  await once(socket, 'connect')
  return socket
}

/** The same services on Unix sockets, for the baseline. */
function servePeer(folder) {
  const block = Buffer.alloc(BLOCK)
  const services = {
    echo: (socket) => socket.pipe(socket),
    discard: (socket) => socket.resume().once('end', () => socket.end()),
    async source(socket) {
      for (let sent = 0; sent < BULK; sent += BLOCK) if (!socket.write(block)) await once(socket, 'drain')
      socket.end()
    },
  }
  const listening = Object.entries(services).map(([name, serve]) => {
    const server = createServer({ allowHalfOpen: true }, (socket) => serve(socket.on('error', () => {})))
    return once(server.listen(join(folder, name)), 'listening')
  })
  process.once('disconnect', () => process.exit())
  return Promise.all(listening).then(() => process.send('ready'))
}

if (process.argv[2] === '--peer') await servePeer(process.argv[3])
