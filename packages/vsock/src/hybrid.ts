import { EventEmitter } from 'node:events'
import { createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { checkAddress, type UnixAddress } from './address.js'
import { type BindOptions, bindUnix } from './bind.js'
import { type Clock, checkDuration, systemClock } from './clock.js'
import { watchPeer } from './ends.js'
import { FIRST_HOST_PORT, okReply, parseCommand } from './handshake.js'
import { join } from './join.js'
import { closeOnAbort } from './listen.js'
import { VsockSocket } from './socket.js'

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
    throw new RangeError(`profile is ${JSON.stringify(profile)}; allowed are ${hybridProfiles.join(', ')}`)
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
  /** Path of the Unix socket, at most 107 bytes. */
  path: string
  /**
   * Finds the guest's end of `port`, ready for use. `undefined`, a rejection or a deadline that passes closes the dialer's
   * connection without text, as VMMs do. The stream then belongs to the server, which ends or destroys it.
   */
  route: (port: number, context: RouteContext) => Promise<Duplex | undefined> | Duplex | undefined
  /** Closes the server; before it listens, `listenHybrid` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
  /**
   * Follows one VMM to the letter, for tests. Default: none, with the pieces of a command waited for and half-close.
   *
   * - `firecracker`, `dragonball`: a command that is not there whole at the first look is closed; no half-close.
   * - `cloud-hypervisor`: pieces of a command are waited for; half-close, as it has since 2026-06.
   */
  profile?: HybridProfile | undefined
  /** From accept to the reply, `route` included. Default 2000 ms, as the VMMs have it. */
  handshakeTimeoutMs?: number | undefined
  /** Connections that may be before their reply at once; any beyond are closed at once. Default 128. */
  maxPending?: number | undefined
  /**
   * Whether a dialer's EOF leaves the way back open. false: it shuts both ways down, and before the reply it is the dialer's end.
   * Default what `profile` has, else true.
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
  /** Accepting one connection failed; the server goes on. Never thrown if nobody listens. */
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
  const local = checkAddress({ transport: 'unix', path: options.path }, `unix:${options.path}`) as UnixAddress
  const acceptor = createServer({ allowHalfOpen: true })
  let release = async () => {}
  const server = new HybridServer(options, () => release())
  acceptor.on('connection', (socket) => server.accept(VsockSocket.adopt(socket, { local, halfClose: true })))
  acceptor.on('error', (error) => server.report(error))
  try {
    release = await bindUnix(acceptor, local, local.path, options)
  } catch (error) {
    // Somebody may have connected already.
    await server.close()
    throw error
  }
  closeOnAbort(server, options.signal)
  return server
}

/** Owns every connection of its dialers, and every stream `route` gave for one. */
export class HybridServer extends EventEmitter<HybridServerEvents> implements AsyncDisposable {
  readonly #options: ListenHybridOptions
  readonly #ways: Ways
  readonly #clock: Clock
  readonly #handshakeTimeoutMs: number
  readonly #maxPending: number
  readonly #stop: () => Promise<void>
  readonly #sockets = new Set<VsockSocket>()
  readonly #guests = new Set<Duplex>()
  readonly #hostPorts = new Set<number>()
  #pending = 0
  #nextHostPort = FIRST_HOST_PORT
  #closed: Promise<void> | undefined

  /** Made by `listenHybrid`. */
  constructor(options: ListenHybridOptions, stop: () => Promise<void>) {
    super()
    this.#options = options
    this.#ways = waysOf(options)
    this.#clock = options.clock ?? systemClock
    this.#handshakeTimeoutMs = checkDuration('handshakeTimeoutMs', options.handshakeTimeoutMs ?? 2_000)
    this.#maxPending = options.maxPending ?? 128
    if (!Number.isInteger(this.#maxPending) || this.#maxPending < 1)
      throw new RangeError(`maxPending is ${this.#maxPending}; at least 1`)
    this.#stop = stop
  }

  get path(): string {
    return this.#options.path
  }

  /** Connections that are open now, those before their reply included. */
  get size(): number {
    return this.#sockets.size
  }

  /** Stops listening, removes the socket file, destroys every connection, and resolves when they are gone. Twice is once. */
  close(): Promise<void> {
    this.#closed ??= this.#shut()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** @internal */
  report(error: Error): void {
    if (this.listenerCount('error') > 0) this.emit('error', error)
  }

  /** @internal One dialer, from its first byte to the close of both ends. */
  accept(socket: VsockSocket): void {
    this.#sockets.add(socket)
    const gone = new AbortController()
    socket.once('close', () => {
      this.#sockets.delete(socket)
      gone.abort(new Error("the dialer's connection is closed"))
    })
    // 'close' follows, and tells everybody who has to know.
    socket.on('error', () => {})
    if (this.#closed) socket.destroy()
    else if (this.#pending >= this.#maxPending) this.#refuse(socket, { port: undefined, reason: 'too-many' })
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
    // Only without bytes for the guest: those it will have, even if their dialer has gone. The reply is for one that still listens.
    const onEnd = () => {
      if (!this.#ways.halfClose) return onGone()
      // 'close' follows.
      unwatch = watchPeer(socket, this.#clock)
    }
    const cancelTimer = this.#clock.setTimer(this.#handshakeTimeoutMs, () => refuse('timeout'))
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
      // Inside a promise, so that a route that throws is a route that rejects.
      Promise.resolve()
        .then(() => this.#options.route(result, { signal, hostPort }))
        .then(
          (stream) => {
            // Checked here, where it costs one connection: streams come from outside, some of them without types.
            if (stream && typeof stream.pipe !== 'function') {
              if (!socket.destroyed) refuse('route-failed', new TypeError('route: must give a Duplex, or undefined'))
            } else if (socket.destroyed) {
              stream?.on('error', () => {}).destroy()
            } else if (!stream || stream.destroyed) {
              refuse('no-route', stream?.errored ?? undefined)
            } else {
              leave()
              this.#guests.add(stream)
              stream.once('close', () => this.#guests.delete(stream))
              join(socket, stream, { halfClose: this.#ways.halfClose, clock: this.#clock, reply: okReply(hostPort) })
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
   * Calls back once, with the port, with what is wrong with the command, or with nothing if the dialer ended before it had said
   * anything; gives bytes behind the command back to the socket.
   */
  #readCommand(socket: VsockSocket, done: (result: number | string | undefined) => void): () => void {
    let received: Buffer = Buffer.alloc(0)
    const onReadable = () => {
      const chunk: Buffer | null = socket.read()
      if (chunk === null) return
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const command = parseCommand(received)
      if (command.kind === 'incomplete' && this.#ways.pieces) return
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

  /** Counts within [2^30, 2^31), past those still in use. */
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
    if (!this.#closed) this.emit('refused', refusal)
  }

  async #shut(): Promise<void> {
    await undefined
    const closing = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once('close', resolve)))
    for (const socket of this.#sockets) socket.destroy()
    // Those that outlive their dialer to let the guest read to the end, too.
    // A cut in the middle, which must not pass for an end.
    for (const guest of this.#guests) guest.destroy(new Error('the server of its connection was closed'))
    try {
      await this.#stop()
      await Promise.all(closing)
    } finally {
      this.emit('close')
    }
  }
}

function after(hostPort: number): number {
  return hostPort === 0x7fffffff ? FIRST_HOST_PORT : hostPort + 1
}
