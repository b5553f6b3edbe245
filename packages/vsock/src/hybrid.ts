import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { checkFunction, duration, integer, wrongValue } from '@upcall/foundation/check'
import { type Clock, setLongTimer, systemClock } from '@upcall/foundation/clock'
import { type Acceptor, checkAcceptOptions, closeOnAbort, givenUp, openAcceptor } from './acceptor.js'
import { checkAddress, type UnixAddress } from './address.js'
import type { BindOptions } from './bind.js'
import { watchPeer } from './ends.js'
import { FIRST_HOST_PORT, okReply, parseCommand } from './handshake.js'
import { join } from './join.js'
import type { VsockSocket } from './socket.js'
import { trace } from './trace.js'

/** A VMM whose ways `listenHybrid` can follow. */
export type HybridProfile = 'firecracker' | 'cloud-hypervisor' | 'dragonball'

interface Ways {
  /** A command may come in pieces. */
  readonly pieces: boolean
  readonly halfClose: boolean
}

const PROFILES: Readonly<Record<HybridProfile, Ways>> = {
  firecracker: { pieces: false, halfClose: false },
  'cloud-hypervisor': { pieces: true, halfClose: true },
  dragonball: { pieces: false, halfClose: false },
}

/** The names that `listenHybrid` takes as `profile`. */
export const hybridProfiles = Object.keys(PROFILES) as readonly HybridProfile[]

function waysOf({ profile, halfClose }: ListenHybridOptions): Ways {
  if (profile !== undefined && !Object.hasOwn(PROFILES, profile))
    wrongValue('profile', `one of ${hybridProfiles.join(', ')}`, profile)
  const ways = profile === undefined ? { pieces: true, halfClose: true } : PROFILES[profile]
  return { ...ways, halfClose: halfClose ?? ways.halfClose }
}

export interface RouteContext {
  /** Aborts when the dialer goes away, when the handshake's deadline passes, and when the server closes. */
  signal: AbortSignal
  /** The host-side port of this connection, the `n` of the reply: what the guest would see as its peer's port. */
  hostPort: number
}

export interface ListenHybridOptions extends BindOptions {
  /** Path of the Unix socket. */
  path: string
  /**
   * Finds the guest's end of `port`, ready for use. After `undefined`, a rejection or a deadline that has passed, the server closes
   * the dialer's connection without text, as VMMs do. The stream then belongs to the server, which ends or destroys it.
   */
  route: (port: number, context: RouteContext) => Promise<Duplex | undefined> | Duplex | undefined
  /** Closes the server; before it listens, `listenHybrid` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
  /**
   * Follows one VMM to the letter, for tests. Default: none; the server waits for the pieces of a command and has half-close.
   *
   * - `firecracker`, `dragonball`: close a connection whose command is incomplete at the first look; no half-close.
   * - `cloud-hypervisor`: waits for the pieces of a command; half-close, as it has since 2026-06.
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
  clock?: Clock | undefined
}

/** Why a dialer was closed without text. */
export interface Refusal {
  /** The port asked for, once the command has been read. */
  port: number | undefined
  reason: 'bad-command' | 'no-route' | 'route-failed' | 'timeout' | 'too-many' | 'dialer-gone'
  cause?: unknown
}

export interface HybridServerEvents {
  /** A handshake succeeded, the reply is on its way. */
  connection: [info: { port: number; hostPort: number }]
  refused: [refusal: Refusal]
  /** Accepting one connection failed; the server goes on. Never thrown if there is no listener for it. */
  error: [error: Error]
  close: []
}

/**
 * The VMM's end of hybrid vsock: reads `CONNECT <port>\n`, answers `OK <n>\n` and joins the connection with what `route` gives.
 *
 * @throws {AddressError} for a path that cannot be bound.
 * @throws {VsockError} `EADDRINUSE`, `ABORTED`, or the kernel's errno.
 */
export async function listenHybrid(options: ListenHybridOptions): Promise<HybridServer> {
  checkAcceptOptions(options)
  const settings = settingsOf(options)
  const local = checkAddress({ transport: 'unix', path: options.path }, `unix:${options.path}`) as UnixAddress
  const acceptor = await openAcceptor(local, { ...options, halfClose: true, allowHalfOpen: true })
  if (options.signal?.aborted) throw await givenUp(acceptor, options.signal)
  const server = new HybridServer(local.path, settings, acceptor)
  closeOnAbort(server, options.signal)
  return server
}

interface Settings {
  readonly route: ListenHybridOptions['route']
  readonly ways: Ways
  readonly clock: Clock
  readonly handshakeTimeoutMs: number
  readonly maxPending: number
}

function settingsOf(options: ListenHybridOptions): Settings {
  checkFunction('route', options.route)
  return {
    route: options.route,
    ways: waysOf(options),
    clock: options.clock ?? systemClock,
    handshakeTimeoutMs: duration('handshakeTimeoutMs', options.handshakeTimeoutMs, 2_000),
    maxPending: integer('maxPending', options.maxPending ?? 128, { min: 1 }),
  }
}

/** Owns every connection of its dialers, and every stream that `route` gave for one. */
export class HybridServer extends EventEmitter<HybridServerEvents> implements AsyncDisposable {
  /** The path of the Unix socket. */
  readonly path: string
  readonly #settings: Settings
  readonly #acceptor: Acceptor
  readonly #sockets = new Set<VsockSocket>()
  readonly #guests = new Set<Duplex>()
  readonly #hostPorts = new Set<number>()
  #pending = 0
  #nextHostPort = FIRST_HOST_PORT
  #closed: Promise<void> | undefined

  /** @internal Made by `listenHybrid`. */
  constructor(path: string, settings: Settings, acceptor: Acceptor) {
    super()
    this.path = path
    this.#settings = settings
    this.#acceptor = acceptor
    acceptor.start({
      onConnection: (socket) => this.#accept(socket),
      onError: (error) => void (this.listenerCount('error') > 0 && this.emit('error', error)),
    })
  }

  /** Connections that are open now, those before their reply included. */
  get size(): number {
    return this.#sockets.size
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

  #shakeHands(socket: VsockSocket, signal: AbortSignal): void {
    this.#pending++
    let port: number | undefined
    const refuse = (reason: Refusal['reason'], cause?: unknown) => {
      leave()
      this.#refuse(socket, { port, reason, cause })
    }
    const onGone = () => refuse('dialer-gone')
    let unwatch = () => {}
    // Only without bytes for the guest: the guest gets those even if their dialer has gone. The reply is for a dialer that still listens.
    const onEnd = () => {
      if (!this.#settings.ways.halfClose) return onGone()
      // 'close' follows.
      unwatch = watchPeer(socket, this.#settings.clock)
    }
    const cancelTimer = setLongTimer(this.#settings.clock, this.#settings.handshakeTimeoutMs, () => refuse('timeout'))
    const leave = () => {
      this.#pending--
      cancelTimer()
      unwatch()
      socket.off('end', onEnd).off('close', onGone)
      stopReading()
    }
    const stopReading = this.#readCommand(socket, (result) => {
      if (result === undefined) return onGone()
      if (typeof result === 'string') return refuse('bad-command', new Error(result))
      port = result
      socket.once('end', onEnd)
      const hostPort = this.#takeHostPort(socket)
      // Inside a promise, so that throwing counts as rejecting.
      Promise.resolve()
        .then(() => this.#settings.route(result, { signal, hostPort }))
        .then(
          (stream) => {
            // Checked here, where it costs one connection: streams come from outside, some of them without types.
            if (stream && typeof stream.pipe !== 'function') {
              if (!socket.destroyed) refuse('route-failed', new TypeError('route: must return a Duplex or undefined'))
            } else if (socket.destroyed) {
              stream?.on('error', () => {}).destroy()
            } else if (!stream || stream.destroyed) {
              refuse('no-route', stream?.errored ?? undefined)
            } else {
              leave()
              this.#guests.add(stream)
              stream.once('close', () => this.#guests.delete(stream))
              join(socket, stream, {
                halfClose: this.#settings.ways.halfClose,
                clock: this.#settings.clock,
                reply: okReply(hostPort),
              })
              trace(
                { type: 'handshake', path: this.path, port: result, hostPort },
                '%s: CONNECT %d: OK %d',
                this.path,
                result,
                hostPort,
              )
              this.emit('connection', { port: result, hostPort })
            }
          },
          (error) => {
            if (!socket.destroyed) refuse('route-failed', error)
          },
        )
    })
    socket.once('close', onGone)
  }

  /**
   * Calls back once: with the port, with what is wrong with the command, or with nothing if the dialer ended before it sent a byte.
   * Gives the bytes after the command back to the socket.
   */
  #readCommand(socket: VsockSocket, done: (result: number | string | undefined) => void): () => void {
    let received: Buffer = Buffer.alloc(0)
    const onReadable = () => {
      const chunk: Buffer | null = socket.read()
      if (chunk === null) return
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const command = parseCommand(received)
      if (command.kind === 'incomplete' && this.#settings.ways.pieces) return
      stop()
      if (command.kind === 'incomplete') return done('the command came in more than one piece')
      if (command.kind === 'invalid') return done(command.why)
      if (received.length > command.end) socket.unshift(received.subarray(command.end))
      done(command.port)
    }
    const onEnd = () => {
      stop()
      done(received.length > 0 ? 'the dialer ended before a newline' : undefined)
    }
    const stop = () => void socket.off('readable', onReadable).off('end', onEnd)
    socket.on('readable', onReadable).on('end', onEnd)
    return stop
  }

  /** Counts within [2^30, 2^31), and skips the ports that are still in use. */
  #takeHostPort(socket: VsockSocket): number {
    while (this.#hostPorts.has(this.#nextHostPort)) this.#nextHostPort = after(this.#nextHostPort)
    const hostPort = this.#nextHostPort
    this.#nextHostPort = after(hostPort)
    this.#hostPorts.add(hostPort)
    socket.once('close', () => this.#hostPorts.delete(hostPort))
    return hostPort
  }

  #refuse(socket: VsockSocket, refusal: Refusal): void {
    socket.destroy()
    trace({ type: 'refused', path: this.path, ...refusal }, '%s: CONNECT %s refused: %s', this.path, refusal.port, refusal.reason)
    if (!this.#closed) this.emit('refused', refusal)
  }

  async #shut(): Promise<void> {
    await undefined
    const closing = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once('close', resolve)))
    for (const socket of this.#sockets) socket.destroy()
    // Also the ends that outlive their dialer so that the guest can read everything. An error, since a cut must not look like an end.
    for (const guest of this.#guests) guest.destroy(new Error('the hybrid vsock server was closed'))
    try {
      await this.#acceptor.stop()
      await Promise.all(closing)
    } finally {
      this.emit('close')
    }
  }
}

function after(hostPort: number): number {
  return hostPort === 0x7fffffff ? FIRST_HOST_PORT : hostPort + 1
}
