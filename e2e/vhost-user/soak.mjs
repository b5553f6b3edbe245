// Traffic without end through one guest, in both directions, begun by either end, with buffers of many sizes; every byte is checked. Time and
// again it looks whether each connection moves, and tells of all that is known when one does not.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { connect, listen } from '@upcall/vsock'
import { answer, BUFFER_SIZES, exchange } from '../guest/vhost-user/exchange.mjs'
import { fillPayload } from '../payload.mjs'
import { GUEST, GUEST_CID, HOST, MIB, serveDevice } from './scene.mjs'
import { Vm } from './vm.mjs'

/** Where nothing moves for so long, or nothing of one connection, something stands still. */
const SILENCE_MS = 6_000
const WAIT_MS = 60_000
const LOOK_MS = 250
/** Each end of a transfer connects within that, in a guest that has much to do. */
const CONNECT_MS = 40_000
/** Of the device, in bytes. The first is the default. */
const DEVICE_BUFFERS = [256 * 1024, 4096, 1 << 20, 65_536, 4 << 20, 100_000]
const BLOCKS = [64 * 1024, 64 * 1024, 1500, 200]
const ROUND_MS = 10 * 60_000
const CHANNEL = 'upcall:vhost-user'
/** Of what was told before a failure, so much is shown. */
const LAST = 60

export class Soak {
  #options
  #folder = mkdtempSync(join(tmpdir(), 'upcall-soak-'))
  #device
  #vm
  #answers = new Set()
  #over = false
  #failure
  /** What the device and the guest's end told of themselves last. */
  #told = []
  #onMessage = (message) => {
    if (message.type === 'connection-ended') this.#tell(JSON.stringify(message))
  }
  /** Times that the device had to end a wait, by kind; and whether the guest's interrupt had been sent. */
  recoveries = {}
  toGuest = 0
  toHost = 0
  transfers = 0
  rounds = 0
  longestSilenceMs = 0
  /** The longest that one of several connections moved nothing. */
  longestWaitMs = 0
  /** Times that the guest's program did nothing at all for six seconds and more. */
  busy = 0

  /** `maxCpus`: of the guest; default: as @upcall/qemu has it. */
  constructor({ image, minutes, maxCpus, log = console.log }) {
    this.#options = { image, minutes, maxCpus, log }
  }

  /** Rounds of at most ten minutes, each with a guest and a device of its own. */
  async run() {
    const { image, minutes } = this.#options
    subscribe(CHANNEL, this.#onMessage)
    fillPayload(join(this.#folder, 'payload'), {
      programs: ['guest/vhost-user', 'guest/commands.mjs'],
      packages: ['@upcall/vsock'],
      prebuilt: image.arch !== 'x86_64',
    })
    try {
      const total = minutes * 60_000
      const rounds = Math.max(2, Math.ceil(total / ROUND_MS))
      for (let i = 0; i < rounds; i++) await this.#round(DEVICE_BUFFERS[i % DEVICE_BUFFERS.length], total / rounds)
    } finally {
      unsubscribe(CHANNEL, this.#onMessage)
      rmSync(this.#folder, { recursive: true, force: true })
    }
    return this.summary()
  }

  summary() {
    const gib = (bytes) => `${(bytes / 1024 / MIB).toFixed(2)} GiB`
    const recoveries = Object.entries(this.recoveries).map(([kind, count]) => `${count} × ${kind}`)
    return [
      `${this.rounds} rounds, ${this.transfers} transfers, ${gib(this.toGuest)} to the guest and ${gib(this.toHost)} to the host, all bytes right`,
      `longest silence ${Math.round(this.longestSilenceMs)} ms, of one connection ${Math.round(this.longestWaitMs)} ms`,
      ...(this.busy > 0 ? [`${this.busy} times the guest's program did nothing`] : []),
      `recoveries: ${recoveries.join(', ') || 'never'}`,
    ].join('; ')
  }

  async #round(bufferBytes, ms) {
    const { image, maxCpus } = this.#options
    const hybridPath = join(this.#folder, 'vsock')
    const socketPath = join(this.#folder, 'vhost')
    const services = await this.#startServices(hybridPath)
    try {
      this.#device = await serveDevice({ socketPath, hybridPath, guestCid: GUEST_CID, bufferBytes })
      this.#device.on('recovery', ({ ring, by, lost }) => {
        const kind =
          by === 'kick' ? `${ring} without a kick` : `${ring} ${lost ? 'not interrupted' : 'interrupted, not caught up'}`
        this.recoveries[kind] = (this.recoveries[kind] ?? 0) + 1
      })
      for (const event of ['state', 'stopped', 'reset', 'warning', 'refused'])
        this.#device.on(event, (what) => this.#tell(`${event} ${JSON.stringify(what)}`))
      const payloadDir = join(this.#folder, 'payload')
      this.#vm = await Vm.start({ image, payloadDir, socketPath, maxCpus, timeoutMs: ms + 300_000 })
      this.#vm.on('failed', ({ message }) => this.#tell(`the guest: ${message}`))
      await this.#device.ready({ signal: AbortSignal.timeout(10_000) })
      this.#over = false
      const end = performance.now() + ms
      const watched = this.#watch()
      const dial = (port) =>
        connect(`hvsock://${hybridPath}:${port}`, { halfClose: true, allowHalfOpen: true, timeoutMs: CONNECT_MS })
      const until = async (transfer) => {
        while (performance.now() < end && !this.#failure) await transfer()
      }
      const workers = [
        () => this.#echo(dial),
        () => this.#echo(dial),
        () => this.#fromHost(dial),
        () => this.#fromHost(dial),
        () => this.#fromGuest(),
        () => this.#fromGuest(),
      ]
      try {
        // The guest's program is done with a transfer when its sockets have the bytes; they are still to come.
        const done = Promise.all(workers.map(until)).then(() => Promise.all(this.#answers))
        await Promise.race([done, watched])
        if (this.#failure) throw this.#failure
      } catch (error) {
        await this.#tellAll()
        throw error
      } finally {
        this.#over = true
      }
      this.rounds++
      this.#options.log(`# round ${this.rounds}, a device buffer of ${bufferBytes} bytes: so far ${this.summary()}`)
    } finally {
      await this.#vm?.close()
      await this.#device?.close()
      for (const service of services) await service.close()
    }
  }

  /** What the guest begins is answered here. */
  async #startServices(hybridPath) {
    const exchanges = await listen(`hvsock://${hybridPath}:${HOST.exchange}`, {
      halfClose: true,
      allowHalfOpen: true,
      maxPending: 1024,
    })
    exchanges.on('connection', (socket) => {
      socket.on('error', () => {})
      const answered = this.#transfer('begun by the guest', (counts) => answer(socket, counts))
      this.#answers.add(answered)
      void answered.finally(() => this.#answers.delete(answered))
    })
    return [exchanges]
  }

  /** Blocks of 1 MiB there and back at once, over sockets as they are. */
  async #echo(dial) {
    await this.#transfer('echo', async ({ onSent, onBytes }) => {
      const socket = await dial(GUEST.echo)
      const block = Buffer.alloc(MIB, `${this.transfers} `)
      const count = 64
      let received = 0
      const ended = new Promise((resolve, reject) => {
        socket.on('data', (chunk) => {
          for (let at = 0; at < chunk.length; ) {
            const from = (received + at) % MIB
            const length = Math.min(chunk.length - at, MIB - from)
            if (!chunk.subarray(at, at + length).equals(block.subarray(from, from + length)))
              reject(new Error('echo: wrong bytes'))
            at += length
          }
          received += chunk.length
          onBytes(chunk.length)
        })
        socket.once('error', reject).once('end', resolve)
      })
      for (let i = 0; i < count; i++) {
        onSent(MIB)
        if (!socket.write(block)) await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), ended])
      }
      socket.end()
      await ended
      if (received !== count * MIB) throw new Error(`echo: ${received} bytes came back of ${count * MIB}`)
    })
  }

  async #fromHost(dial) {
    const port = pick([GUEST.exchange, ...BUFFER_SIZES.map((_, i) => GUEST.buffers + i)])
    await this.#transfer(`to port ${port} of the guest`, async (counts) => exchange(await dial(port), { ...any(), ...counts }))
  }

  /** Its bytes are seen where it is answered. */
  async #fromGuest() {
    const bufferSize = pick([undefined, ...BUFFER_SIZES])
    await this.#vm.run('exchange', { port: HOST.exchange, bufferSize, ...any() }, { timeoutMs: 300_000 })
  }

  async #transfer(name, run) {
    let bytes = 0
    const onSent = (count) => {
      bytes += count
      this.toGuest += count
    }
    const onBytes = (count) => {
      bytes += count
      this.toHost += count
    }
    try {
      await run({ onSent, onBytes })
      this.transfers++
    } catch (error) {
      this.#fail(new Error(`${name}, after ${bytes} bytes: ${error.message}`, { cause: error }))
    }
  }

  /**
   * Something has to move at any time, and each open connection within a minute: what was sent, came, or was taken of it, as the device
   * sees it. (A slow guest's program may serve one connection for seconds before it looks at the next.)
   */
  async #watch() {
    const seen = new Map()
    let since = performance.now()
    while (!this.#over && !this.#failure) {
      await delay(LOOK_MS)
      const now = performance.now()
      const open = this.#device.snapshot().connections.filter(({ state }) => state === 'open')
      const keys = new Set()
      for (const { hostPort, guestPort, host, guest } of open) {
        const key = `host port ${hostPort}, guest port ${guestPort}`
        keys.add(key)
        const moved = [host.received, host.taken, guest.sent, guest.taken].join(' ')
        if (seen.get(key)?.moved === moved) continue
        seen.set(key, { moved, since: now })
        since = now
      }
      for (const key of seen.keys()) if (!keys.has(key)) seen.delete(key)
      const longest = Math.max(0, ...[...seen.values()].map((each) => now - each.since))
      this.longestSilenceMs = Math.max(this.longestSilenceMs, now - since)
      this.longestWaitMs = Math.max(this.longestWaitMs, longest)
      if (now - since <= SILENCE_MS && longest <= WAIT_MS) continue
      // A guest whose program has other things to do, or that gets no CPU time, proves nothing.
      if (await this.#guestAnswers(SILENCE_MS)) {
        const still = [...seen].filter(([, each]) => now - each.since > SILENCE_MS)
        await this.#standsStill(still.map(([key]) => key).join('; ') || 'no connection')
      } else this.#wait()
      since = performance.now()
    }
  }

  /** Whether the guest's program answers over a virtio port, which has nothing to do with the device. */
  #guestAnswers(timeoutMs) {
    return this.#vm.run('state', {}, { timeoutMs }).then(
      () => true,
      () => false,
    )
  }

  /** The guest's program does not answer either. That is told, and is a failure when it lasts. */
  #wait() {
    this.busy++
    this.#options.log(`# nothing moves, and the guest's program does not answer (${this.busy})`)
    if (this.busy > 10) this.#fail(new Error("the guest's program does not answer"))
  }

  async #standsStill(still) {
    const { log } = this.#options
    const show = (what, value) => log(`# ${what}: ${JSON.stringify(value)}`)
    show('stands still', still)
    for (const look of ['now', 'two seconds later']) {
      const { rx, tx, connections } = this.#device.snapshot()
      show(`${look}: receive ring`, rx)
      show(`${look}: transmit ring`, tx)
      for (const connection of connections) show(`${look}: connection`, connection)
      if (look === 'now') await delay(2_000)
    }
    show('recoveries', this.recoveries)
    show('QEMU', await this.#vm.qmp('query-status').catch(({ message }) => message))
    show("the guest's program", await this.#guestAnswers(1_000))
    this.#fail(new Error(`${still}: nothing moved; the rings are printed above`))
  }

  #tell(what) {
    this.#told = [...this.#told, what].slice(-LAST)
  }

  /** Before everything is closed: whether the guest lives, what the device saw, and what the guest's kernel printed. */
  async #tellAll() {
    const { log } = this.#options
    log(`# the guest's program answers: ${await this.#guestAnswers(1_000)}`)
    for (const each of this.#told) log(`# before: ${each}`)
    for (const connection of this.#device.snapshot().connections) log(`# connection: ${JSON.stringify(connection)}`)
    for (const line of this.#vm.console.text.trimEnd().split('\n').slice(-15)) log(`# console: ${line.trimEnd()}`)
  }

  #fail(error) {
    this.#failure ??= error
  }
}

/** Some bytes one way or both, in writes of some size. */
function any() {
  const bytes = 1 + Math.floor(Math.random() ** 2 * 8 * MIB)
  const [send, want] = pick([
    [bytes, 0],
    [0, bytes],
    [bytes, bytes],
  ])
  const block = pick(BLOCKS)
  // Small writes cost an emulated guest a multiple for each byte.
  const scale = Math.min(1, (block * 256) / MIB)
  return { send: Math.ceil(send * scale), want: Math.ceil(want * scale), block }
}

function pick(choices) {
  return choices[Math.floor(Math.random() * choices.length)]
}
