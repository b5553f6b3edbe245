import { isDeepStrictEqual } from 'node:util'
import type { IncomingConnection, VhostUserVsock, VsockNetwork } from '@upcall/vhost-user'
import { type Address, listenHybrid, type Route, type SeqpacketRoute } from '@upcall/vsock'
import { refusalText } from '../../../streams/listener.js'
import type { Journal } from './journal.js'
import type { Backend, DeviceSettings } from './settings.js'
import type { Surroundings } from './surroundings.js'

/** What becomes of a device when its settings change. `limits`: nothing is closed. `front`: what leads to the guest is. `replace`: everything. */
export type Change = 'none' | 'limits' | 'front' | 'replace'

/** A device, and in front of it what leads programs of this machine to the guest. */
export class RunningDevice {
  #settings: DeviceSettings
  readonly #surroundings: Surroundings
  readonly #journal: Journal
  #device: VhostUserVsock | undefined
  /** The listeners for connections to the guest; undefined if they are not all open. */
  #front: { close(): Promise<void> }[] | undefined

  constructor(settings: DeviceSettings, surroundings: Surroundings, journal: Journal) {
    this.#settings = settings
    this.#surroundings = surroundings
    this.#journal = journal
  }

  changeTo(settings: DeviceSettings): Change {
    const before = this.#settings
    if (!isDeepStrictEqual(fixedOf(before), fixedOf(settings))) return 'replace'
    if (this.#front === undefined || !isDeepStrictEqual(frontOf(before), frontOf(settings))) return 'front'
    return isDeepStrictEqual(before, settings) ? 'none' : 'limits'
  }

  /** Listens for QEMU. */
  async open(network: Pick<VsockNetwork, 'add'>): Promise<void> {
    const { socket: socketPath, groups, policy } = this.#settings
    this.#device = await network.add({
      ...{ ...fixedOf(this.#settings), socketPath, groups, policy },
      onConnection: (port, incoming) => this.#dial(port, incoming),
    })
    this.#listenTo(this.#device)
  }

  /** Listens for programs that want to reach the guest. */
  async openFront(): Promise<void> {
    const front: { close(): Promise<void> }[] = []
    try {
      for (const open of this.#openers()) front.push(await open())
    } catch (error) {
      await Promise.all(front.map((listener) => listener.close()))
      throw error
    }
    this.#front = front
    const { guestCid: cid, socket, backend } = this.#settings
    this.#journal.say('listening', { cid, socket, ...backendFields(backend) }, (paint) => {
      return `${paint('green', 'listening')} on ${socket} for guest ${cid}, ${backendText(backend)}`
    })
  }

  /** Other rules, rates and groups, and where connections of the guest lead. What is open stays. */
  setLimits(settings: DeviceSettings): void {
    this.#settings = settings
    this.#device?.setPolicy(settings.policy)
    this.#device?.setGroups(settings.groups)
  }

  /** Takes no more connections to the guest, and cuts those that there are. */
  async closeFront(): Promise<void> {
    const front = this.#front ?? []
    this.#front = undefined
    await Promise.all(front.map((listener) => listener.close()))
  }

  async close(): Promise<void> {
    await this.closeFront()
    await this.#device?.close()
  }

  #openers(): (() => Promise<{ close(): Promise<void> }>)[] {
    const { backend, halfClose, seqpacket, handshakeTimeoutMs } = this.#settings
    const device = this.#device!
    if (backend.kind === 'vsock') return backend.listen.map((port) => () => this.#surroundings.forward(port, device))
    const { path } = backend
    const open = async () => {
      const route: Route = (port, { signal }) => device.connect(port, { signal })
      const forMessages: SeqpacketRoute = (port, { signal }) => device.connectSeqpacket(port, { signal })
      const hybrid = await listenHybrid({
        ...{ path, route, halfClose, handshakeTimeoutMs },
        routeSeqpacket: seqpacket ? forMessages : undefined,
      })
      return hybrid.on('refused', (refusal) => {
        const { port, reason } = refusal
        const value = { client: path, port, reason }
        this.#journal.saySparingly('refused', device.guestCid, value, refusalText(refusal), 'client refused')
      })
    }
    return [open]
  }

  /** The guest connects to a port of the host. */
  #dial(port: number, incoming: IncomingConnection): ReturnType<Surroundings['dial']> {
    const { backend, handshakeTimeoutMs: timeoutMs } = this.#settings
    const { type, signal } = incoming
    return this.#surroundings.dial(addressOf(backend, port), { type, signal, timeoutMs })
  }

  #listenTo(device: VhostUserVsock): void {
    const { guestCid: cid } = device
    const say = (event: string, value: object, text: string) => this.#journal.saySparingly(event, cid, value, text)
    // The end of the device has a line of its own.
    device.on('state', ({ state, previous }) => {
      if (state !== 'closed') say('state', { state, previous }, `${state}, was ${previous}`)
    })
    device.on('stopped', ({ reason, error }) => {
      const fault = error && { error: { code: error.code, what: error.what } }
      say('stopped', { reason, ...fault }, `stopped: ${error === undefined ? reason : `${reason}: ${error.what}`}`)
    })
    device.on('reset', ({ connections }) => say('reset', { connections }, `a new driver; connections cut: ${connections}`))
    device.on('recovery', (recovery) =>
      say('recovery', recovery, `guest and device waited for each other, and no longer do (${recovery.ring}, ${recovery.by})`),
    )
    device.on('warning', ({ code, what }) => say('warning', { error: { code, what } }, what))
  }
}

/** What can only be given to a new device. */
function fixedOf(settings: DeviceSettings) {
  const { guestCid, socket, bufferBytes, hostCids, handshakeTimeoutMs, lingerMs, maxConnections } = settings
  return { guestCid, socket, bufferBytes, hostCids, handshakeTimeoutMs, lingerMs, maxConnections }
}

/** What is about the programs of this machine. */
function frontOf({ backend, halfClose, seqpacket }: DeviceSettings) {
  return { backend, halfClose, seqpacket }
}

function addressOf(backend: Backend, port: number): Address {
  if (backend.kind === 'unix') return { transport: 'unix', path: `${backend.path}_${port}` }
  return { transport: 'vsock', cid: backend.cid, port }
}

function backendFields(backend: Backend): object {
  return backend.kind === 'unix' ? { udsPath: backend.path } : { forwardCid: backend.cid, forwardListen: backend.listen }
}

function backendText(backend: Backend): string {
  if (backend.kind === 'unix') return `for programs on ${backend.path}`
  const back = backend.listen.length === 0 ? '' : `, and ports ${backend.listen.join(', ')} to the guest`
  return `forwarded to CID ${backend.cid}${back}`
}
