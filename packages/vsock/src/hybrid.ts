import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { callBack } from '@upcall/foundation/callback'
import { checkFunction, checkSwitch, duration, integer, wrongValue } from '@upcall/foundation/check'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import { type Acceptor, checkAcceptOptions, closeOnAbort, givenUp, openAcceptor, type Place, placeOf } from './acceptor.js'
import { checkAddress, hybridSeqpacketPath, toSeqpacketAddress } from './address.js'
import type { BindOptions } from './bind.js'
import { FIRST_HOST_PORT } from './handshake.js'
import {
  Handshake,
  type Host,
  type Joined,
  type NoReceiver,
  type Refusal,
  type Route,
  type Settings,
  type Ways,
} from './hybrid-handshake.js'
import { type SeqpacketRoute, shakeHands } from './hybrid-messages.js'
import { wrongDescriptor } from './inherited.js'
import type { Binding } from './native/binding.js'
import { AddonError, loadBinding } from './native/loader.js'
import { openSeqpacketAcceptor } from './seqpacket/acceptor.js'
import type { SeqpacketSocket } from './seqpacket/socket.js'
import type { VsockSocket } from './socket.js'
import { trace } from './trace.js'

/** A VMM whose ways `listenHybrid` can follow. */
export type HybridProfile = 'firecracker' | 'cloud-hypervisor' | 'dragonball'

/** What a VMM does with `passfd`: the two that do not know the command take it for a bad one. */
interface Profile extends Ways {
  readonly passfd: boolean
}

const PROFILES: Readonly<Record<HybridProfile, Profile>> = {
  firecracker: { pieces: false, halfClose: false, passfd: false },
  'cloud-hypervisor': { pieces: true, halfClose: true, passfd: false },
  dragonball: { pieces: false, halfClose: false, passfd: true },
}
const TOLERANT: Profile = { pieces: true, halfClose: true, passfd: true }

/** The names that `listenHybrid` takes as `profile`. */
export const hybridProfiles = Object.keys(PROFILES) as readonly HybridProfile[]

function profileOf({ profile, halfClose, passfd }: ListenHybridOptions): Profile {
  if (profile !== undefined && !Object.hasOwn(PROFILES, profile))
    wrongValue('profile', `one of ${hybridProfiles.join(', ')}`, profile)
  checkSwitch('passfd', passfd)
  const ways = profile === undefined ? TOLERANT : PROFILES[profile]
  return { ...ways, halfClose: halfClose ?? ways.halfClose, passfd: passfd ?? ways.passfd }
}

/** The addon, which alone can receive descriptors, or why there are none here. */
function receiverOf(passfd: boolean, profile: HybridProfile | undefined): Binding | NoReceiver {
  if (!passfd && profile !== undefined && !PROFILES[profile].passfd)
    return { reason: 'bad-command', why: '"passfd" is not CONNECT' }
  if (!passfd) return { reason: 'no-descriptors', why: 'this server takes no descriptors' }
  try {
    return loadBinding()
  } catch (error) {
    if (!(error instanceof AddonError)) throw error
    return { reason: 'no-descriptors', why: `descriptors cannot be received here: ${error.what}` }
  }
}

export interface ListenHybridOptions extends BindOptions {
  /** Path of the Unix socket. This or `fd` is needed. */
  path?: string | undefined
  /**
   * In place of `path`: the descriptor of a Unix socket that another program has bound, systemd for example (`listenFds`). The server owns
   * it and closes it. It does not remove the socket file.
   */
  fd?: number | undefined
  /**
   * Finds the guest's end of `port`, ready for use. After `undefined`, a rejection or a deadline that has passed, the server closes
   * the dialer's connection without text, as VMMs do. The stream then belongs to the server, which ends or destroys it.
   */
  route: Route
  /** Closes the server; before it listens, `listenHybrid` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
  /**
   * Follows one VMM to the letter, for tests. Default: none; the server waits for the pieces of a command and has half-close.
   *
   * - `firecracker`, `dragonball`: close a connection whose command is incomplete at the first look; no half-close.
   * - `cloud-hypervisor`: waits for the pieces of a command; half-close, as it has since 2026-06.
   * - `passfd`: only `dragonball` has it; the two others take it for a bad command.
   */
  profile?: HybridProfile | undefined
  /** From accept to the reply, `route` included. Default 2000 ms, as in the VMMs. */
  handshakeTimeoutMs?: number | undefined
  /** Connections that may wait for their reply at the same time; the server closes any more at once. Default 128. */
  maxPending?: number | undefined
  /**
   * Whether a dialer's EOF leaves the way back open. false: EOF shuts both ways down, and before the reply it means that the dialer
   * has gone. Default: what `profile` has, else true.
   */
  halfClose?: boolean | undefined
  /**
   * Whether dialers may pass a descriptor (`passfd`, see `passDescriptor`), which is then joined with the guest's end. Who can connect to
   * the socket can make this process read and write what they have open themselves. Default: what `profile` has, else true. It needs the
   * addon of this package: without it each `passfd` is refused as `no-descriptors`, and `CONNECT` works.
   */
  passfd?: boolean | undefined
  /**
   * A draft, which may change: also listens at `<path>_seqpacket` for message sockets, as Cloud Hypervisor's issue 8894 proposes it, and finds
   * the guest's end of a port for them. `CONNECT <port>\n` and `OK <n>\n` are the first message each way. It needs `path` and the addon.
   * Default: no message sockets.
   */
  routeSeqpacket?: SeqpacketRoute | undefined
  clock?: Clock | undefined
}

export interface HybridServerEvents {
  /** A handshake succeeded, the reply is on its way. `passed`: what is joined with the guest's end is a descriptor. `type`: messages. */
  connection: [info: { port: number; hostPort: number; passed?: true; type?: 'seqpacket' }]
  refused: [refusal: Refusal]
  /** Accepting one connection failed; the server goes on. Never thrown if there is no listener for it. */
  error: [error: Error]
  close: []
}

/**
 * The VMM's end of hybrid vsock: reads `CONNECT <port>\n`, answers `OK <n>\n` and joins the connection with what `route` gives. After
 * `passfd\n` it joins a descriptor of the dialer's instead, and the dialer's connection has done its work with the reply.
 *
 * @throws {AddressError} for a path that cannot be bound.
 * @throws {VsockError} `EADDRINUSE`, `ABORTED`, or the kernel's errno.
 */
export async function listenHybrid(options: ListenHybridOptions): Promise<HybridServer> {
  checkAcceptOptions(options)
  const settings = settingsOf(options)
  const place = hybridPlace(options)
  // Not a byte may be read by Node before it is known whether descriptors come with them.
  const held = { pauseOnConnect: !('why' in settings.receiver) }
  const messages = await openMessages(options)
  const acceptor = await openAcceptor(place, { ...options, halfClose: true, allowHalfOpen: true }, held).catch(async (error) => {
    await messages?.acceptor.stop()
    throw error
  })
  if (options.signal?.aborted) {
    await messages?.acceptor.stop()
    throw await givenUp(acceptor, options.signal)
  }
  const server = new HybridServer(acceptor.path ?? '', settings, acceptor, messages)
  closeOnAbort(server, options.signal)
  return server
}

/** The listener for message sockets, if there is a route for them. */
interface Messages {
  readonly acceptor: Acceptor<SeqpacketSocket>
  readonly route: SeqpacketRoute
}

async function openMessages(options: ListenHybridOptions): Promise<Messages | undefined> {
  const { path, routeSeqpacket: route } = options
  if (route === undefined) return undefined
  checkFunction('routeSeqpacket', route)
  if (path === undefined) wrongValue('routeSeqpacket', 'left out where there is no path', route)
  const local = toSeqpacketAddress({ transport: 'unix', path: hybridSeqpacketPath(path), type: 'seqpacket' })
  return { acceptor: await openSeqpacketAcceptor({ local }, options), route }
}

function hybridPlace(options: ListenHybridOptions): Place {
  const { path, fd } = options
  if (fd === undefined) return { local: checkAddress({ transport: 'unix', path: path as string }, `unix:${path}`) }
  if (path !== undefined) wrongValue('path', 'left out where there is fd', path)
  const place = placeOf({ fd }, options)
  if (place.local.transport === 'unix') return place
  const what = 'the descriptor is an AF_VSOCK socket'
  throw wrongDescriptor('listen', fd, 'EAFNOSUPPORT', what, 'Hybrid vsock listens on a Unix socket.')
}

function settingsOf(options: ListenHybridOptions): Settings {
  checkFunction('route', options.route)
  const ways = profileOf(options)
  return {
    route: options.route,
    ways,
    receiver: receiverOf(ways.passfd, options.profile),
    clock: options.clock ?? systemClock,
    handshakeTimeoutMs: duration('handshakeTimeoutMs', options.handshakeTimeoutMs, 2_000),
    maxPending: integer('maxPending', options.maxPending ?? 128, { min: 1 }),
  }
}

/** Owns every connection of its dialers, and every stream that `route` gave for one. */
export class HybridServer extends EventEmitter<HybridServerEvents> implements AsyncDisposable {
  /** The path of the Unix socket. For `fd`: the path as its maker bound it, or `fd:<n>` where the system does not tell. */
  readonly path: string
  readonly #settings: Settings
  readonly #acceptor: Acceptor
  readonly #sockets = new Set<VsockSocket>()
  /** The guests' ends, and the descriptors that dialers passed: what outlives a dialer. */
  readonly #guests = new Set<Duplex>()
  readonly #passed = new Set<Duplex>()
  readonly #hostPorts = new Set<number>()
  readonly #messages: Messages | undefined
  readonly #messageSockets = new Set<MessageSocket>()
  #dialers = 0
  #pending = 0
  #nextHostPort = FIRST_HOST_PORT
  #closed: Promise<void> | undefined

  /** @internal Made by `listenHybrid`. */
  constructor(path: string, settings: Settings, acceptor: Acceptor, messages?: Messages) {
    super()
    this.path = path
    this.#settings = settings
    this.#acceptor = acceptor
    this.#messages = messages
    const onError = (error: Error) => void (this.listenerCount('error') > 0 && this.emit('error', error))
    acceptor.start({ onConnection: (socket) => this.#accept(socket), onError })
    messages?.acceptor.start({ onConnection: (socket) => this.#acceptMessages(socket, messages.route), onError })
  }

  /** Connections that are open now, those before their reply and those of passed descriptors included. */
  get size(): number {
    return this.#sockets.size + this.#passed.size + this.#dialers
  }

  /** Stops listening, removes the socket file, destroys every connection, and resolves when they are gone. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#shut()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** One dialer, from its first byte to the close of both ends. */
  #accept(socket: VsockSocket): void {
    this.#sockets.add(socket)
    const gone = new AbortController()
    socket.once('close', () => {
      this.#sockets.delete(socket)
      gone.abort(new Error("the dialer's connection is closed"))
    })
    // 'close' follows, and tells all that depend on it.
    socket.on('error', () => {})
    if (this.#closed) socket.destroy()
    else if (this.#pending >= this.#settings.maxPending) this.#refuse(socket, { port: undefined, reason: 'too-many' })
    else this.#shakeHands(socket, gone.signal)
  }

  #acceptMessages(socket: SeqpacketSocket, route: SeqpacketRoute): void {
    this.#dialers++
    this.#keepMessages(socket, () => this.#dialers--)
    const refuse = (refusal: Omit<Refusal, 'type'>) => this.#refuse(socket, { ...refusal, type: 'seqpacket' })
    if (this.#closed) return void socket.destroy()
    if (this.#pending >= this.#settings.maxPending) return void refuse({ port: undefined, reason: 'too-many' })
    this.#pending++
    void shakeHands(socket, {
      settings: this.#settings,
      route,
      takeHostPort: () => this.#takeHostPort(),
      refuse,
      joined: ({ guest, port, hostPort }) => {
        this.#keepMessages(guest)
        const event = { type: 'handshake', path: this.path, port, hostPort, socket: 'seqpacket' }
        trace(event, '%s: CONNECT %d for messages: OK %d', this.path, port, hostPort)
        callBack(() => this.emit('connection', { port, hostPort, type: 'seqpacket' }))
      },
      left: () => void this.#pending--,
    })
  }

  #keepMessages(socket: MessageSocket, onClosed = () => {}): void {
    this.#messageSockets.add(socket)
    void socket.closed.then(() => {
      this.#messageSockets.delete(socket)
      onClosed()
    })
  }

  #shakeHands(socket: VsockSocket, signal: AbortSignal): void {
    this.#pending++
    const host: Host = {
      settings: this.#settings,
      takeHostPort: () => this.#takeHostPort(),
      refuse: (refusal) => this.#refuse(socket, refusal),
      joined: (info) => this.#joined(info),
      left: () => void this.#pending--,
    }
    new Handshake(socket, signal, host)
  }

  #joined({ near, guest, port, hostPort, passed }: Joined): void {
    this.#guests.add(guest)
    guest.once('close', () => this.#guests.delete(guest))
    if (passed) {
      this.#passed.add(near)
      near.once('close', () => this.#passed.delete(near))
    }
    const event = { type: 'handshake', path: this.path, port, hostPort, ...(passed && { passed }) }
    trace(event, '%s: %s %d: OK %d', this.path, passed ? 'passfd' : 'CONNECT', port, hostPort)
    callBack(() => this.emit('connection', { port, hostPort, ...(passed && { passed }) }))
  }

  /** Counts within [2^30, 2^31), and skips the ports that are still in use. */
  #takeHostPort(): { hostPort: number; release: () => void } {
    while (this.#hostPorts.has(this.#nextHostPort)) this.#nextHostPort = after(this.#nextHostPort)
    const hostPort = this.#nextHostPort
    this.#nextHostPort = after(hostPort)
    this.#hostPorts.add(hostPort)
    return { hostPort, release: () => void this.#hostPorts.delete(hostPort) }
  }

  #refuse(socket: { destroy(): void }, refusal: Refusal): void {
    socket.destroy()
    const { port, reason, cause } = refusal
    const why = cause === undefined ? reason : `${reason}: ${textOf(cause)}`
    trace({ type: 'refused', path: this.path, ...refusal }, '%s: port %s refused: %s', this.path, port, why)
    if (!this.#closed) callBack(() => this.emit('refused', refusal))
  }

  async #shut(): Promise<void> {
    await undefined
    const ends: Duplex[] = [...this.#sockets, ...this.#passed]
    const closing = ends.map((end) => new Promise((resolve) => end.once('close', resolve)))
    const closed = new Error('the hybrid vsock server was closed')
    for (const socket of this.#messageSockets) socket.destroy(closed)
    for (const end of ends) end.destroy()
    // Also the ends that outlive their dialer so that the guest can read everything. An error, since a cut must not look like an end.
    for (const guest of this.#guests) guest.destroy(closed)
    try {
      await Promise.all([this.#acceptor.stop(), this.#messages?.acceptor.stop()])
      await Promise.all(closing)
    } finally {
      this.emit('close')
    }
  }
}

function after(hostPort: number): number {
  return hostPort === 0x7fffffff ? FIRST_HOST_PORT : hostPort + 1
}
