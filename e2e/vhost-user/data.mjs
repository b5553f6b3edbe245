// What goes through the connections. Each exercise returns what the table is to say of it.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect as netConnect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { BUFFER_SIZES, connectMany } from '../guest/vhost-user/exchange.mjs'
import { descriptors, GUEST, HOST, MIB, settled, until } from './scene.mjs'

export async function everything(scene, { bytes, streams }) {
  const started = performance.now()
  const each = Math.ceil(bytes / streams)
  await scene.traffic(streams, each).done()
  assert.equal((await scene.vm.run('state')).failures, 0)
  const rate = (2 * streams * each) / MIB / ((performance.now() - started) / 1000)
  return `${streams * 2} checksums right; ${rate.toFixed(0)} MiB/s, both ways together`
}

export async function manyConnections(scene, count) {
  const { vm, device } = scene
  const guestDescriptors = async () => (await vm.run('state')).descriptors
  // A listener keeps one descriptor in hand from its first connection on.
  await connectMany(1, 1, () => scene.dial(GUEST.echo))
  const before = { host: descriptors(), guest: await guestDescriptors() }
  await connectMany(count / 2, 8, () => scene.dial(GUEST.echo))
  await vm.run('connects', { port: HOST.echo, count: count / 2, width: 8 })
  await settled(before.host)
  await until('descriptors of the guest', async () => (await guestDescriptors()) <= before.guest, { everyMs: 200 })
  await until('connections of the device', () => device.connections === 0)
  return `every echo right; descriptors before and after: host ${before.host}, guest ${before.guest}`
}

export async function halfClose(scene) {
  for (const first of ['connector', 'acceptor']) {
    await scene.exchange({ first, send: MIB, want: MIB })
    await scene.guestExchange({ first, send: MIB, want: MIB })
  }
  await Promise.all(scene.answers.splice(0))
  return 'the way back stays open; every byte of it right'
}

/** What a guest with a smaller buffer than ours sends, and takes: Linux has no more under way than its own socket would take. */
export async function guestBuffers(scene, bytes) {
  for (const [i, bufferSize] of BUFFER_SIZES.entries()) {
    await scene.exchange({ want: bytes }, GUEST.buffers + i)
    await scene.exchange({ send: bytes }, GUEST.buffers + i)
    await scene.guestExchange({ send: bytes, want: bytes, bufferSize })
  }
  await Promise.all(scene.answers.splice(0))
  return `${BUFFER_SIZES.join(', ')} bytes`
}

/** Packets are bounded as bytes are: newer kernels reset a connection whose unread packets outgrow its buffer, however small they are. */
export async function smallWrites(scene, bytes, block) {
  let sent = 0
  const held = scene.exchange({ send: bytes, hold: true, block, onSent: (count) => (sent += count) })
  held.catch(() => {})
  const halted = await standstill(() => sent)
  await scene.vm.run('release')
  await held
  return `the host halts after ${Math.ceil(halted / block)} writes of ${block} bytes; then every byte right`
}

/** A dialer that is gone as soon as it has said all: the guest has to get all of it. */
export async function closingDialer(scene, { bytes, times }) {
  const counts = []
  const count = async (dial) => {
    await dial()
    counts.push(await scene.vm.run('counted'))
  }
  for (let i = 0; i < times; i++) {
    await count(async () => {
      const stream = await scene.device.connect(GUEST.count)
      stream.on('error', () => {}).end(Buffer.alloc(bytes))
      stream.destroy()
    })
    await count(async () => {
      const socket = await scene.dial(GUEST.count)
      socket.end(Buffer.alloc(bytes), () => socket.destroy())
    })
    // It does not even wait for the answer to its CONNECT.
    await count(async () => {
      const socket = netConnect(scene.hybridPath).on('error', () => {})
      socket.end(Buffer.concat([Buffer.from(`CONNECT ${GUEST.count}\n`), Buffer.alloc(bytes)]), () => socket.destroy())
    })
  }
  assert.deepEqual(counts, Array(3 * times).fill({ bytes }))
  return `${counts.length} of ${3 * times} complete, by device.connect(), by CONNECT, and without waiting for its answer`
}

/** A guest that takes nothing more and streams on, for longer than an orderly close may take. */
export async function halfDeafGuest(scene, { seconds }) {
  const listens = scene.vm.event('half-deaf listens')
  const streamed = scene.vm.run('halfDeaf', { port: GUEST.halfDeaf, seconds })
  streamed.catch(() => {})
  await listens
  const stream = await scene.device.connect(GUEST.halfDeaf)
  const started = performance.now()
  const failures = []
  let [bytes, wrong, failed] = [0, 0, undefined]
  stream.on('error', (error) => failures.push(error.code))
  stream.on('data', (chunk) => {
    for (const byte of chunk) if (byte !== bytes++ % 251) wrong++
  })
  const writing = async () => {
    // The guest's SHUTDOWN may be on its way yet.
    while (failed === undefined && !stream.destroyed) {
      await new Promise((resolve) =>
        stream.write('x', (error) => {
          if (error) failed = { code: error.code, ms: performance.now() - started }
          resolve()
        }),
      )
    }
  }
  const ended = once(stream, 'end', { signal: AbortSignal.timeout((seconds + 60) * 1000) })
  await Promise.all([writing(), ended])
  const { sent } = await streamed
  assert.deepEqual({ bytes, wrong, code: failed.code, failures }, { bytes: sent, wrong: 0, code: 'EPIPE', failures: ['EPIPE'] })
  return `${(bytes / MIB).toFixed(0)} MiB in ${seconds} s, every byte right; the write failed after ${failed.ms.toFixed(0)} ms`
}

export async function slowGuest(scene, bytes) {
  let sent = 0
  const held = scene.exchange({ send: bytes, hold: true, onSent: (count) => (sent += count) })
  held.catch(() => {})
  const halted = await standstill(() => sent)
  assert.ok(halted < bytes, `all of ${bytes} bytes went to a guest that reads nothing`)
  await scene.exchange({ send: 16 * MIB, want: 16 * MIB })
  assert.equal(sent, halted)
  await scene.vm.run('release')
  await held
  return `the host halts after ${kib(halted)}, others go on; then every byte right`
}

export async function slowHost(scene, bytes) {
  const { vm, answers } = scene
  const sent = async () => (await vm.run('state')).sent
  const before = await sent()
  const held = scene.guestExchange({ send: bytes, hold: true })
  held.catch(() => {})
  const halted = await standstill(async () => (await sent()) - before)
  assert.ok(halted < bytes, `all of ${bytes} bytes went to a host that reads nothing`)
  await scene.exchange({ send: 16 * MIB, want: 16 * MIB })
  scene.release()
  await held
  await answers.pop()
  return `the guest halts after ${kib(halted)}, others go on; then every byte right`
}

/** Where a number that grows comes to rest. */
async function standstill(read) {
  let value
  let since
  await until(
    'backpressure',
    async () => {
      const now = await read()
      if (now !== value || now === 0) since = performance.now()
      value = now
      return performance.now() - since > 1000
    },
    { everyMs: 100, timeoutMs: 60_000 },
  )
  return value
}

const kib = (bytes) => `${Math.round(bytes / 1024)} KiB`

const PYTHON = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[1])
s.sendall(b"CONNECT ${GUEST.socat}\\n")
reply = b""
while not reply.endswith(b"\\n"):
    reply += s.recv(1)
assert reply.startswith(b"OK "), reply
s.sendall(b"from python")
print(s.recv(100).decode(), end="")
`

/** Programs that know nothing of us, and a service in the guest that does not either. */
export async function foreignClients({ hybridPath }) {
  const say = `printf "CONNECT ${GUEST.socat}\\n"; sleep 1; printf "from socat"; sleep 1`
  const socat = await outputOf('sh', ['-c', `(${say}) | socat -t 5 - UNIX-CONNECT:${hybridPath}`])
  if (socat !== undefined) assert.match(socat, /^OK \d+\nfrom socat$/)
  const python = await outputOf('python3', ['-c', PYTHON, hybridPath])
  if (python !== undefined) assert.equal(python, 'from python')
  await byHand(hybridPath)
  const outcome = (output) => (output === undefined ? 'not installed here' : 'ok')
  return `socat ${outcome(socat)}, python3 ${outcome(python)}, by hand ok`
}

/** The same with nothing but a socket, whatever else is installed. */
async function byHand(path) {
  const socket = netConnect(path)
  try {
    const answer = async (text) => {
      socket.write(text)
      return String((await once(socket, 'data', { signal: AbortSignal.timeout(30_000) }))[0])
    }
    assert.match(await answer(`CONNECT ${GUEST.socat}\n`), /^OK \d+\n$/)
    assert.equal(await answer('by hand'), 'by hand')
  } finally {
    socket.destroy()
    await delay(0)
  }
}

/** What a program wrote to stdout; undefined if there is no such program. */
async function outputOf(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'], timeout: 90_000 })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  try {
    // 127: of a shell that does not find it.
    const [status] = await once(child, 'close')
    return status === 127 || /command not found/.test(output) ? undefined : output
  } catch (error) {
    if (error.code === 'ENOENT') return undefined
    throw error
  }
}
