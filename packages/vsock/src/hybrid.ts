import { EventEmitter } from 'node:events'
import { createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { checkAddress, type UnixAddress } from './address.js'
import { type BindOptions, bindUnix } from './bind.js'
import { type Clock, checkDuration, systemClock } from './clock.js'
import { FIRST_HOST_PORT, okReply, parseCommand } from './handshake.js'
import { join } from './join.js'
import { closeOnAbort } from './listen.js'
import { VsockSocket } from './socket.js'

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
   * Whose command reading to follow. `firecracker` (default): the whole command has to be there at the first look, a command in
   * two pieces is closed. `cloud-hypervisor`: pieces are waited for.
   */
  profile?: 'firecracker' | 'cloud-hypervisor' | undefined
  /** From accept to the reply, `route` included. Default 2000 ms, as the VMMs have it. */
  handshakeTimeoutMs?: number | undefined
  /** Connections that may be before their reply at once; any beyond are closed at once. Default 128. */
  maxPending?: number | undefined
  /** false: the dialer's EOF shuts its connection down both ways, as with Firecracker. Default true, as Cloud Hypervisor. */
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
  readonly #halfClose: boolean
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
    this.#halfClose = options.halfClose ?? true
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
    // A dialer has nothing to say before the reply but bytes for the guest; if it ends without any, it does not wait any more.
    const onGone = () => refuse('dialer-gone')
    const cancelTimer = this.#clock.setTimer(this.#handshakeTimeoutMs, () => refuse('timeout'))
    const leave = () => {
      this.#pending--
      cancelTimer()
      socket.off('end', onGone).off('close', onGone)
      stopReading()
    }
    const stopReading = this.#readCommand(socket, (result) => {
      if (typeof result === 'string') return refuse('bad-command', new Error(result))
      port = result
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
              refuse('no-route')
            } else {
              leave()
              socket.write(okReply(hostPort), 'latin1')
              this.#guests.add(stream)
              stream.once('close', () => this.#guests.delete(stream))
              join(socket, stream, this.#halfClose)
              this.emit('connection', { port: result, hostPort })
            }
          },
          (error) => {
            if (!socket.destroyed) refuse('route-failed', error)
          },
        )
    })
    socket.once('end', onGone).once('close', onGone)
  }

  /** Calls back once, with the port or with what is wrong with the command; gives bytes behind the command back to the socket. */
  #readCommand(socket: VsockSocket, done: (result: number | string) => void): () => void {
    let received: Buffer = Buffer.alloc(0)
    const onReadable = () => {
      const chunk: Buffer | null = socket.read()
      if (chunk === null) return
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const command = parseCommand(received)
      if (command.kind === 'incomplete' && this.#options.profile === 'cloud-hypervisor') return
      stop()
      if (command.kind === 'incomplete') return done('the command came in more than one piece')
      if (command.kind === 'invalid') return done(command.why)
      if (received.length > command.end) socket.unshift(received.subarray(command.end))
      done(command.port)
    }
    const stop = () => void socket.off('readable', onReadable)
    socket.on('readable', onReadable)
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
    for (const guest of this.#guests) guest.destroy()
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
