// Between the host and a guest under QEMU (tcg), through the vhost-user device of this process; and the same bytes through a Unix socket
// alone, to another process. Needs QEMU and Debian's tools; the first run makes the guest image. UPCALL_BENCH_CPU is the guest's CPU model.
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
import { pingPong, quantile } from './measure.mjs'

const here = fileURLToPath(import.meta.url)
const GIB = 2 ** 30
const BULK = 256 * 2 ** 20
const BLOCK = 64 * 1024
const ROUNDS = 2_000
/** Clock ticks of /proc/<pid>/stat: 100 a second on every Linux that Node runs on. */
const TICKS = 100

const PORTS = { echo: 5000, discard: 5001, source: 5002, interrupts: 5003 }
/** In the guest everything is socat, which costs the emulated CPU least. */
const SERVICES = [
  `socat VSOCK-LISTEN:${PORTS.echo},fork PIPE &`,
  `socat -u -b ${BLOCK} VSOCK-LISTEN:${PORTS.discard},fork OPEN:/dev/null &`,
  `socat -U -b ${BLOCK} VSOCK-LISTEN:${PORTS.source},fork OPEN:/dev/zero,readbytes=${BULK} &`,
  `socat -U VSOCK-LISTEN:${PORTS.interrupts},fork OPEN:/proc/interrupts &`,
  'sleep 1; echo ready; wait',
].join('\n')

export async function bench() {
  try {
    return await measureAll()
  } catch (error) {
    if (error.code !== 'TOOL_MISSING' && error.code !== 'IMAGE') throw error
    return [{ way: `not measured: ${error.message}` }]
  }
}

async function measureAll() {
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
    const interrupts = () => guestInterrupts(device)
    const baseline = await measure('a Unix socket alone', (name) => dialUnix(join(folder, name)), peer.pid)
    return [
      baseline,
      await measure('guest: device.connect()', (name) => device.connect(PORTS[name]), guest.guest.pid, interrupts),
      await measure('guest: CONNECT', (name) => dialHybrid(join(folder, 'vsock'), PORTS[name]), guest.guest.pid, interrupts),
    ].map((measured) => row(measured, baseline))
  } finally {
    await guest?.close()
    await hybrid?.close()
    await device?.close()
    peer.kill()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function dialUnix(path) {
  const socket = netConnect({ path, allowHalfOpen: true })
  await once(socket, 'connect')
  return socket
}

async function dialHybrid(path, port) {
  const socket = await dialUnix(path)
  socket.write(`CONNECT ${port}\n`)
  await once(socket, 'readable')
  socket.read()
  return socket
}

async function measure(way, dial, pid, interrupts = () => 0) {
  const rounds = await usage(pid, interrupts, () => roundTrips(dial))
  const to = await usage(pid, interrupts, () => send(dial))
  const from = await usage(pid, interrupts, () => receive(dial))
  return { way, rounds, to, from }
}

/**
 * `to` and `from` the other end; CPU time in seconds per GiB, of this process (client and device) and of the other (peer or QEMU). `×` is
 * how many times the baseline's it is.
 */
function row({ way, rounds, to, from }, baseline) {
  const gib = BULK / GIB
  const both = (format) => `${format(to)} / ${format(from)}`
  const times = (figure) =>
    [to, from].map((it, i) => (figure(it) / figure([baseline.to, baseline.from][i])).toFixed(2)).join(' / ')
  const median = ({ rounds: { value } }) => quantile(value, 0.5)
  const rate = ({ seconds }) => BULK / 2 ** 20 / seconds
  return {
    way,
    'round trip, µs': `${median({ rounds }).toFixed(0)} (99 %: ${quantile(rounds.value, 0.99).toFixed(0)})`,
    '× round trip': (median({ rounds }) / median(baseline)).toFixed(1),
    'MiB/s to / from': both((it) => rate(it).toFixed(0)),
    '× MiB/s': times(rate),
    'CPU s per GiB here': both(({ own }) => (own / gib).toFixed(2)),
    '× here': times(({ own }) => own),
    there: both(({ other }) => (other / gib).toFixed(2)),
    '× there': times(({ other }) => other),
    'guest interrupts per round': (rounds.interrupts / ROUNDS).toFixed(2),
    'per MiB': both((it) => (it.interrupts / (BULK / 2 ** 20)).toFixed(1)),
  }
}

/** Microseconds each. */
async function roundTrips(dial) {
  const socket = await dial('echo')
  await pingPong(socket, ROUNDS / 10)
  const times = []
  for (let i = 0; i < ROUNDS; i++) times.push(await pingPong(socket, 1))
  socket.destroy()
  return times
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

/** What `run` takes: time, CPU time of this process and of another, interrupts of the guest. */
async function usage(pid, interrupts, run) {
  const before = { interrupts: await interrupts(), other: cpuSeconds(pid), own: process.cpuUsage(), at: performance.now() }
  const value = await run()
  const seconds = (performance.now() - before.at) / 1000
  const { user, system } = process.cpuUsage(before.own)
  const other = cpuSeconds(pid) - before.other
  return { value, seconds, own: (user + system) / 1e6, other, interrupts: (await interrupts()) - before.interrupts }
}

/** All those of virtio queues; the other virtio devices are idle. */
async function guestInterrupts(device) {
  const socket = await device.connect(PORTS.interrupts)
  let text = ''
  for await (const chunk of socket) text += chunk
  const counts = [...text.matchAll(/^ *\d+: +(\d+) .*virtio\d+-(?!config)/gm)].map(([, count]) => Number(count))
  if (counts.length === 0) throw new Error('the guest tells no virtio interrupts')
  return counts.reduce((sum, count) => sum + count, 0)
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
    ...{ machine: 'q35', memory: '512M', sharedMemory: true, cpus: 1, timeoutMs: 600_000, bootTimeoutMs: 120_000 },
    cpu: process.env.UPCALL_BENCH_CPU,
    chardevs: [`socket,id=vsock,path=${path}`],
    devices: ['vhost-user-vsock-pci,chardev=vsock'],
  })
  await Promise.race([listening, guest.result])
  return guest
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
