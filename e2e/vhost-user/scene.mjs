import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { createVsockDevice } from '@upcall/vhost-user'
import { connect, listen, listenHybrid } from '@upcall/vsock'
import { compile } from '../compile.mjs'
import { answer, exchange } from '../guest/vhost-user/exchange.mjs'
import { fillPayload } from '../payload.mjs'
import { Vm } from './vm.mjs'

export const MIB = 1 << 20
export const GUEST_CID = 42
/** Services of the guest program, and of the host. */
export const GUEST = { echo: 5000, exchange: 5001, socat: 5002, count: 5003, halfDeaf: 5004, messages: 5005, buffers: 5100 }
export const HOST = { echo: 6000, exchange: 6001, messages: 6002 }
/** Under emulation and on a busy machine a handshake may take its time. */
const HANDSHAKE_MS = 20_000

/** What the exercises share: a folder for sockets, the host's services, the device, and the guest of the moment. */
export class Scene {
  image
  folder = mkdtempSync(join(tmpdir(), 'upcall-vhost-'))
  vhostPath = join(this.folder, 'vhost')
  hybridPath = join(this.folder, 'vsock')
  device
  vm
  /** What the device told, in order. */
  told = []
  /** Transfers that the guest has begun, as promises. */
  answers = []
  /** Given each SEQPACKET connection that the guest begins. */
  onMessages = (stream) => stream.destroy()
  /** Lets the host read a transfer that was begun with `hold`. */
  release = () => {}
  #closers = []

  /** `log`: a file for the consoles. */
  constructor(image, { log } = {}) {
    this.image = image
    this.log = log
    const prebuilt = image.arch !== 'x86_64'
    const payload = join(this.folder, 'payload')
    fillPayload(payload, { programs: ['guest/vhost-user', 'guest/commands.mjs'], packages: ['@upcall/vsock'], prebuilt })
    // It needs a compiler for the guest's machine, which is at hand if that is this one.
    for (const name of prebuilt ? [] : ['half-deaf', 'messages'])
      compile(fileURLToPath(new URL(`${name}.c`, import.meta.url)), join(payload, name))
  }

  /** Guests find an echo and an exchange on the host, where Firecracker would look for them: `<path>_<port>`. */
  async startServices() {
    const options = { halfClose: true, allowHalfOpen: true, maxPending: 1024 }
    const echo = await listen(`hvsock://${this.hybridPath}:${HOST.echo}`, options)
    echo.on('connection', (socket) => socket.on('error', () => {}).pipe(socket))
    const exchanges = await listen(`hvsock://${this.hybridPath}:${HOST.exchange}`, options)
    exchanges.on('connection', (socket) => {
      socket.on('error', () => {})
      const answered = answer(socket, { released: () => new Promise((resolve) => (this.release = resolve)) })
      answered.catch(() => socket.destroy())
      this.answers.push(answered)
    })
    this.#closers.push(echo, exchanges)
  }

  async startDevice(options = {}) {
    this.device = await serveDevice({
      ...{ socketPath: this.vhostPath, guestCid: GUEST_CID, hybridPath: this.hybridPath },
      onMessages: (stream) => this.onMessages(stream),
      ...options,
    })
    this.device.on('state', ({ state }) => this.told.push(state))
    this.device.on('stopped', ({ reason }) => this.told.push(`stopped: ${reason}`))
    this.device.on('reset', () => this.told.push('reset'))
  }

  /** The device is gone, and the hybrid socket with it. */
  async stopDevice() {
    await this.device?.close()
    this.device = undefined
  }

  async boot() {
    const { image, log } = this
    this.vm = await Vm.start({ image, payloadDir: join(this.folder, 'payload'), socketPath: this.vhostPath, log })
    await this.device?.ready({ signal: AbortSignal.timeout(10_000) })
  }

  async close() {
    await this.vm?.close()
    await this.stopDevice()
    for (const closer of this.#closers) await closer.close()
    rmSync(this.folder, { recursive: true, force: true })
  }

  async dial(port) {
    const socket = await connect(`hvsock://${this.hybridPath}:${port}`, {
      halfClose: true,
      allowHalfOpen: true,
      timeoutMs: 2 * HANDSHAKE_MS,
    })
    return socket.on('error', () => {})
  }

  async exchange(how, port = GUEST.exchange) {
    return exchange(await this.dial(port), how)
  }

  guestExchange(how) {
    return this.vm.run('exchange', { port: HOST.exchange, ...how }, { timeoutMs: 300_000 })
  }

  /**
   * That many transfers of `bytes` each way, every other one begun by the guest. `moved` counts what those of the host have got,
   * `flowing` waits for the first of it.
   */
  traffic(streams, bytes) {
    let moved = 0
    const how = { send: bytes, want: bytes }
    const transfers = Array.from({ length: streams }, (_, i) =>
      i % 2 === 1 ? this.guestExchange(how) : this.exchange({ ...how, onBytes: (count) => (moved += count) }),
    )
    const done = Promise.all(transfers)
    // Those that are to fail are looked at one by one.
    for (const each of [...transfers, done]) each.catch(() => {})
    return { transfers, moved: () => moved, flowing: () => until('traffic', () => moved > MIB), done: () => this.#settle(done) }
  }

  async #settle(done) {
    await done
    await Promise.all(this.answers.splice(0))
  }

  /** Transfers of either side's making have failed. */
  async broken([transfer]) {
    await assert.rejects(transfer)
    await assert.rejects(this.answers.splice(0)[0])
  }
}

/** The device, and the hybrid socket in front of it, as one thing to close. */
export async function serveDevice({ socketPath, guestCid, hybridPath, bufferBytes, onMessages }) {
  const device = await createVsockDevice({
    ...{ socketPath, guestCid, bufferBytes, handshakeTimeoutMs: HANDSHAKE_MS },
    onConnection(port, { signal, type, acceptSeqpacket }) {
      if (type === 'seqpacket') return void onMessages(acceptSeqpacket())
      return connect({ transport: 'unix', path: `${hybridPath}_${port}` }, { signal })
    },
  })
  const route = (port, { signal }) => device.connect(port, { signal })
  const hybrid = await listenHybrid({ path: hybridPath, route, handshakeTimeoutMs: HANDSHAKE_MS, maxPending: 1024 })
  const closeDevice = device.close.bind(device)
  device.close = async () => {
    await hybrid.close()
    await closeDevice()
  }
  return device
}

export async function until(what, condition, { timeoutMs = 30_000, everyMs = 10 } = {}) {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`)
    await delay(everyMs)
  }
}

/** Descriptors that a process has open. */
export function descriptors(pid = 'self') {
  return readdirSync(`/proc/${pid}/fd`).length
}

/** Everything that a process opened since is closed. */
export async function settled(before, pid) {
  await until('descriptors', () => descriptors(pid) <= before, { timeoutMs: 15_000 }).catch(() => {})
  assert.ok(descriptors(pid) <= before, `${descriptors(pid)} descriptors are open, ${before} were`)
}

/** Guest memory in this process's address space, in bytes. */
export function mappedBytes() {
  let sum = 0
  for (const [, from, to] of readFileSync('/proc/self/maps', 'utf8').matchAll(/^(\w+)-(\w+) .*memfd:memory-backend-memfd/gm)) {
    sum += Number.parseInt(to, 16) - Number.parseInt(from, 16)
  }
  return sum
}
