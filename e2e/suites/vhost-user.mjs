// A real guest behind the Unix socket: QEMU's vhost-user-vsock device in this process, the guest's stock driver at the other end.
// Every byte is checked by its receiver; the table at the end says what came of each exercise.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { createVsockDevice } from '@upcall/vhost-user'
import { connect, listen, listenHybrid } from '@upcall/vsock'
import { Checks } from './checks.mjs'
import { answer, connectMany, exchange } from './guest/exchange.mjs'
import { guestImage } from './image.mjs'
import { guestPayload } from './payload.mjs'
import { Vm } from './vhost-user/vm.mjs'

const MIB = 1 << 20
const GUEST_CID = 42
const STREAMS = 12
const EACH_WAY = 1024 * MIB
const CONNECTS = 2000
/** Under emulation and on a busy machine a handshake may take its time. */
const HANDSHAKE_MS = 20_000

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const checks = new Checks('e2e vhost-user')
const PYTHON = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[1])
s.sendall(b"CONNECT 5002\\n")
reply = b""
while not reply.endswith(b"\\n"):
    reply += s.recv(1)
assert reply.startswith(b"OK "), reply
s.sendall(b"from python")
print(s.recv(100).decode(), end="")
`

const table = []
const image = await checks.check('a guest image is made, or found in the cache', () => guestImage())
const folder = mkdtempSync(join(tmpdir(), 'upcall-vhost-'))
const payload = guestPayload(['vsock'])
const paths = { vhost: join(folder, 'vhost'), hybrid: join(folder, 'vsock') }
/** What the device tells, in order. */
const told = []
let host
let vm

try {
  if (image) await suite()
} finally {
  await vm?.close()
  await host?.close()
  rmSync(folder, { recursive: true, force: true })
  payload.remove()
}
console.log('\nwhat was done, and what came of it:')
console.table(table)
checks.finish()

async function suite() {
  host = await startHost(paths)
  const idle = descriptors()
  vm = await exercise('boot', 'q35, stock Debian kernel, one vCPU, tcg', () => start())
  if (!vm) return
  if (!process.env.SKIP) await exercise('1 GiB each way', `${STREAMS} streams, both ends dialling, both ways at once`, everything)
  await exercise('connects and closes', `${CONNECTS}, half from either end`, manyConnections)
  await exercise('half-close', 'either end first, from either end', halfClose)
  await exercise('slow guest', '4 MiB to a guest that does not read', slowGuest)
  await exercise('slow host', '4 MiB to a host that does not read', slowHost)
  await exercise('socat and Python', 'CONNECT by hand, a service of the guest’s socat', foreignClients)
  if (!process.env.SKIP) await exercise('stop and cont', '5 times under traffic', stopAndCont)
  if (!process.env.SKIP) await exercise('memory hotplug', 'SET_MEM_TABLE on running rings, under traffic', hotplug)
  await exercise('guest reset', 'system_reset under traffic, then the new guest', guestReset)
  await exercise('QEMU killed', 'SIGKILL under traffic', qemuKilled)
  await exercise('descriptors', 'those of this process, all guests gone', () => settled(idle))
  vm = await exercise('a second VM', 'on the same device', () => start())
  if (vm) await exercise('the second VM’s vsock', '64 MiB each way', () => traffic(2, 32 * MIB).done)
  await vm?.close()
  await host.close()
  host = undefined
  await backEnd()
}

/** A check that also fills a row of the table. */
function exercise(name, what, run) {
  return checks.check(name, async () => {
    const started = performance.now()
    const row = { exercise: name, what, outcome: 'FAILED', seconds: 0 }
    table.push(row)
    try {
      const value = await run((outcome) => (row.outcome = outcome))
      if (row.outcome === 'FAILED') row.outcome = typeof value === 'string' ? value : 'as it should'
      return value
    } finally {
      row.seconds = Number(((performance.now() - started) / 1000).toFixed(1))
    }
  })
}

// ── the host's side ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function startHost({ vhost, hybrid }) {
  const device = await createVsockDevice({
    ...{ socketPath: vhost, guestCid: GUEST_CID, handshakeTimeoutMs: HANDSHAKE_MS },
    onConnection: (port, { signal }) => connect({ transport: 'unix', path: `${hybrid}_${port}` }, { signal }),
  })
  device.on('state', ({ state }) => told.push(state))
  device.on('stopped', ({ reason }) => told.push(`stopped: ${reason}`))
  device.on('reset', () => told.push('reset'))
  const route = (port, { signal }) => device.connect(port, { signal })
  const server = await listenHybrid({ path: hybrid, route, handshakeTimeoutMs: HANDSHAKE_MS, maxPending: 1024 })
  const services = await startServices(hybrid)
  return {
    device,
    ...services,
    async close() {
      await services.close()
      await server.close()
      await device.close()
    },
  }
}

/** What guests find on the host: an echo and an exchange, where Firecracker would look for them. */
async function startServices(hybrid) {
  const held = { release() {} }
  const echo = await listen(`hvsock://${hybrid}:6000`, { halfClose: true, maxPending: 1024 })
  echo.on('connection', (socket) => socket.on('error', () => {}).pipe(socket))
  const exchanges = await listen(`hvsock://${hybrid}:6001`, { halfClose: true, maxPending: 1024 })
  const answers = []
  exchanges.on('connection', (socket) => {
    socket.on('error', () => {})
    const answered = answer(socket, { released: () => new Promise((resolve) => (held.release = resolve)) })
    answered.catch(() => socket.destroy())
    answers.push(answered)
  })
  return {
    held,
    answers,
    async close() {
      await echo.close()
      await exchanges.close()
    },
  }
}

async function start() {
  const started = await Vm.start({ image, payloadDir: payload.dir, socketPath: paths.vhost })
  await host?.device.ready({ signal: AbortSignal.timeout(10_000) })
  return started
}

async function dial(port) {
  const socket = await connect(`hvsock://${paths.hybrid}:${port}`, { halfClose: true, timeoutMs: 2 * HANDSHAKE_MS })
  return socket.on('error', () => {})
}

async function exchangeWithGuest(how) {
  return exchange(await dial(5001), how)
}

/** Open transfers, every other one begun by the guest. `moved` counts the bytes of those that the host began. */
function traffic(streams, bytes, how = {}) {
  const counter = { moved: 0 }
  const transfer = (i) => {
    if (i % 2 === 1) return vm.run('exchange', { port: 6001, send: bytes, want: bytes, ...how }, { deadlineMs: 300_000 })
    return exchangeWithGuest({ send: bytes, want: bytes, ...how, onBytes: (count) => (counter.moved += count) })
  }
  const transfers = Array.from({ length: streams }, (_, i) => transfer(i))
  const done = Promise.all(transfers)
  // Those that are to fail are looked at one by one.
  for (const each of [...transfers, done]) each.catch(() => {})
  const flowing = () => until('traffic', () => counter.moved > MIB)
  return { transfers, counter, flowing, done }
}

async function until(what, condition, { deadlineMs = 30_000, everyMs = 10 } = {}) {
  const deadline = performance.now() + deadlineMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${deadlineMs} ms`)
    await delay(everyMs)
  }
}

function descriptors() {
  return readdirSync('/proc/self/fd').length
}

/** Everything that was opened since is closed. */
async function settled(before) {
  await until('descriptors', () => descriptors() <= before, { deadlineMs: 15_000 }).catch(() => {})
  assert.ok(descriptors() <= before, `${descriptors()} descriptors are open, ${before} were`)
  return `${before} before, ${descriptors()} after`
}

function guestState() {
  return vm.run('state')
}

// ── the exercises ────────────────────────────────────────────────────────────────────────────────────────────────────────

async function everything() {
  const started = performance.now()
  const bytes = Math.ceil(EACH_WAY / STREAMS)
  await traffic(STREAMS, bytes).done
  const answered = await Promise.all(host.answers.splice(0))
  assert.equal(answered.length, STREAMS / 2)
  assert.equal((await guestState()).failures, 0)
  return `${STREAMS * 2} checksums right, ${((STREAMS * bytes * 2) / MIB / ((performance.now() - started) / 1000)).toFixed(0)} MiB/s in sum`
}

async function manyConnections() {
  const before = { host: descriptors(), guest: (await guestState()).descriptors }
  await connectMany(CONNECTS / 2, 8, () => dial(5000))
  await vm.run('connects', { port: 6000, count: CONNECTS / 2, width: 8 })
  await settled(before.host)
  await until('descriptors of the guest', async () => (await guestState()).descriptors <= before.guest, { everyMs: 200, deadlineMs: 5000 }).catch(async () => console.log('DBG', before, await guestState(), await vm.run('links')))
  await until('connections of the device', () => host.device.connections === 0)
  return 'every echo right, no descriptor more on either side'
}

async function halfClose() {
  for (const first of ['connector', 'acceptor']) {
    await exchangeWithGuest({ first, send: MIB, want: MIB })
    await vm.run('exchange', { port: 6001, first, send: MIB, want: MIB })
  }
  await Promise.all(host.answers.splice(0))
  return 'the way back stays open, every byte of it right'
}

async function slowGuest() {
  const bytes = 4 * MIB
  const socket = await dial(5001)
  const held = exchange(socket, { send: bytes, hold: true })
  held.catch(() => {})
  // The sender comes to a halt, and others do not notice.
  await until('backpressure', () => stands(() => socket.bytesWritten - socket.writableLength), { deadlineMs: 60_000 })
  const taken = socket.bytesWritten - socket.writableLength
  assert.ok(taken < bytes, `the whole ${bytes} bytes went to a guest that reads nothing`)
  await exchangeWithGuest({ send: 16 * MIB, want: 16 * MIB })
  await vm.run('release')
  await held
  return `halts after ${(taken / 1024).toFixed(0)} KiB, others go on, then every byte right`
}

async function slowHost() {
  const bytes = 4 * MIB
  const held = vm.run('exchange', { port: 6001, send: bytes, hold: true })
  held.catch(() => {})
  await until('the guest’s connection', () => host.answers.length === 1)
  await delay(500)
  await exchangeWithGuest({ send: 16 * MIB, want: 16 * MIB })
  const { rss } = process.memoryUsage()
  host.held.release()
  await held
  await host.answers.pop()
  return `others go on, then every byte right (${(rss / MIB).toFixed(0)} MiB resident)`
}

/** A number that has stopped growing. */
async function stands(read) {
  const before = read()
  await delay(500)
  return before > 0 && read() === before
}

async function foreignClients() {
  const outcomes = []
  const say = 'printf "CONNECT 5002\\n"; sleep 1; printf "from socat"; sleep 1'
  const clients = {
    socat: ['sh', '-c', `(${say}) | socat -t 5 - UNIX-CONNECT:${paths.hybrid}`],
    python3: ['python3', '-c', PYTHON, paths.hybrid],
  }
  for (const [name, [program, ...args]] of Object.entries(clients)) {
    const output = await outputOf(program, args)
    if (output === undefined) {
      outcomes.push(`${name} is not installed here`)
      continue
    }
    assert.match(output, name === 'socat' ? /^OK \d+\nfrom socat$/ : /^from python$/)
    outcomes.push(`${name} ok`)
  }
  // The same by hand, where neither is at hand: the command, its reply, and bytes behind it.
  const socket = netConnect(paths.hybrid).setTimeout(30_000, () => socket.destroy(new Error('silent')))
  socket.write('CONNECT 5002\n')
  const [reply] = await once(socket, 'data')
  assert.match(String(reply), /^OK \d+\n$/)
  socket.write('by hand')
  assert.equal(String((await once(socket, 'data'))[0]), 'by hand')
  socket.destroy()
  return [...outcomes, 'by hand ok'].join(', ')
}

/** What a program wrote to stdout; undefined if there is no such program. */
async function outputOf(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], timeout: 90_000 })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  try {
    const [status] = await once(child, 'close')
    return status === 127 && output === '' ? undefined : output
  } catch (error) {
    if (error.code === 'ENOENT') return undefined
    throw error
  }
}

async function stopAndCont() {
  told.length = 0
  const { transfers, counter, flowing } = traffic(4, 48 * MIB)
  await flowing()
  for (let i = 0; i < 5; i++) {
    await vm.qmp('stop')
    await until('the pause', () => host.device.state === 'attached')
    await delay(100)
    const paused = counter.moved
    await delay(200)
    assert.equal(counter.moved, paused, 'bytes moved while the VM was stopped')
    await vm.qmp('cont')
    await until('traffic after cont', () => counter.moved > paused)
  }
  await Promise.all(transfers)
  await Promise.all(host.answers.splice(0))
  assert.equal(told.filter((word) => word === 'stopped: paused').length, 5)
  assert.ok(!told.includes('reset'))
  return 'five pauses, no connection lost, every byte right'
}

async function hotplug() {
  const before = mappedBytes()
  const { megabytes } = await vm.run('memory')
  told.length = 0
  const { transfers, flowing } = traffic(4, 48 * MIB)
  await flowing()
  for (const id of ['1', '2']) {
    await vm.qmp('object-add', { 'qom-type': 'memory-backend-memfd', id: `more${id}`, size: 256 * MIB, share: true })
    await vm.qmp('device_add', { driver: 'pc-dimm', id: `dimm${id}`, memdev: `more${id}` })
  }
  await until('memory in the guest', async () => (await vm.run('memory')).megabytes >= megabytes + 500, { everyMs: 300 })
  await Promise.all(transfers)
  await Promise.all(host.answers.splice(0))
  await traffic(4, 16 * MIB).done
  await Promise.all(host.answers.splice(0))
  assert.deepEqual(told, [])
  const mapped = (mappedBytes() - before) / MIB
  assert.equal(mapped, 512)
  return `two tables, ${mapped} MiB more mapped, no connection lost, every byte right`
}

/** Guest memory in this process's address space. */
function mappedBytes() {
  let sum = 0
  for (const [, from, to] of readFileSync('/proc/self/maps', 'utf8').matchAll(/^(\w+)-(\w+) .*memfd:memory-backend-memfd/gm)) {
    sum += Number.parseInt(to, 16) - Number.parseInt(from, 16)
  }
  return sum
}

async function guestReset() {
  told.length = 0
  const { transfers, flowing } = traffic(2, 256 * MIB)
  await flowing()
  const again = vm.event('ready', { deadlineMs: 120_000 })
  const started = performance.now()
  await vm.qmp('system_reset')
  await assert.rejects(transfers[0])
  const cut = performance.now() - started
  await assert.rejects(host.answers.splice(0)[0])
  await again
  await host.device.ready({ signal: AbortSignal.timeout(10_000) })
  assert.equal(told.filter((word) => word === 'reset').length, 1)
  await traffic(2, 16 * MIB).done
  await Promise.all(host.answers.splice(0))
  return `old connections end (after ${(cut / 1000).toFixed(1)} s: when the new driver begins), new ones work`
}

async function qemuKilled() {
  told.length = 0
  const { transfers, flowing } = traffic(2, 256 * MIB)
  await flowing()
  await vm.kill()
  await assert.rejects(transfers[0])
  await assert.rejects(host.answers.splice(0)[0])
  await until('the end of the line', () => host.device.state === 'waiting')
  assert.ok(told.includes('stopped: disconnected'))
  assert.equal(mappedBytes(), 0)
  await assert.rejects(dial(5000), { code: 'ECONNREFUSED' })
  return 'connections end at once, guest memory is unmapped, dialling is refused, the device waits'
}

// ── a back end that dies ─────────────────────────────────────────────────────────────────────────────────────────────────

async function backEnd() {
  let backEnd = await startBackEnd()
  const services = await startServices(paths.hybrid)
  host = { ...services, close: services.close }
  try {
    vm = await exercise('boot', 'with the back end in a process of its own', () => start())
    if (!vm) return
    await exercise('back end killed', 'SIGKILL under traffic', async () => {
      const { transfers, flowing } = traffic(2, 256 * MIB)
      await flowing()
      backEnd.kill('SIGKILL')
      await once(backEnd, 'close')
      await assert.rejects(transfers[0])
      await assert.rejects(host.answers.splice(0)[0])
      assert.deepEqual(await vm.qmp('query-status').then(({ status }) => status), 'running')
      await guestState()
      return 'the guest runs on, without vsock'
    })
    await exercise('back end brought back', 'device_del, chardev-remove, chardev-add, device_add', async () => {
      const deleted = vm.qmpEvent('DEVICE_DELETED')
      await vm.qmp('device_del', { id: 'vsock0' })
      await deleted
      await vm.qmp('chardev-remove', { id: 'vsock' })
      backEnd = await startBackEnd()
      const addr = { type: 'unix', data: { path: paths.vhost } }
      await vm.qmp('chardev-add', { id: 'vsock', backend: { type: 'socket', data: { addr, server: false } } })
      await vm.qmp('device_add', { driver: 'vhost-user-vsock-pci', id: 'vsock0', chardev: 'vsock', bus: 'port1' })
      await until('a connection', () => dial(5000).then((socket) => socket.destroy(), () => false), { everyMs: 500, deadlineMs: 60_000 })
      await traffic(4, 16 * MIB).done
      return 'the same guest, the same services: every byte right'
    })
    await exercise('descriptors', 'those of the new back end', async () => {
      const count = () => readdirSync(`/proc/${backEnd.pid}/fd`).length
      const before = count()
      await connectMany(100, 4, () => dial(5000))
      await until('descriptors of the back end', () => count() <= before)
      return `${before} before, ${count()} after 100 connections`
    })
  } finally {
    backEnd.kill('SIGKILL')
  }
}

async function startBackEnd() {
  const child = spawn(process.execPath, [here('vhost-user/back-end.mjs'), paths.vhost, paths.hybrid, String(GUEST_CID)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await once(child.stdout, 'data', { signal: AbortSignal.timeout(20_000) })
  assert.equal(String(line), 'listening\n')
  return child
}
