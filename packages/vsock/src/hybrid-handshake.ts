import type { Duplex } from 'node:stream'
import { type Clock, setLongTimer } from '@upcall/foundation/clock'
import { watchPeer } from './ends.js'
import { okReply, parseCommand } from './handshake.js'
import { hostPortOf } from './host-port.js'
import { join } from './join.js'
import type { Binding } from './native/binding.js'
import { type OpenOptions, streamOf } from './passfd/open.js'
import { duplicateOf, type Request, receiveRequest } from './passfd/receive.js'
import type { VsockSocket } from './socket.js'

export interface RouteContext {
  /** Aborts when the dialer goes away, when the handshake's deadline passes, and when the server closes. */
  signal: AbortSignal
  /**
   * The host-side port of this connection, the `n` of the reply: what the guest would see as its peer's port. If the stream that `route`
   * gives has a port of its own (the `hostPort` of a vhost-user device's stream, the `local.port` of a vsock:// socket), that is the `n`.
   */
  hostPort: number
}

export type Route = (port: number, context: RouteContext) => Promise<Duplex | undefined> | Duplex | undefined

/**
 * Why a dialer was closed without text.
 *
 * - `no-descriptors`: it said `passfd`, and this server takes no descriptors, or cannot here; the `cause` says which
 * - `bad-descriptor`: not exactly one came, the text beside it is malformed, or it is of no use here; the `cause` says which
 */
export interface Refusal {
  /** The port asked for, once the command has been read. */
  port: number | undefined
  reason:
    | 'bad-command'
    | 'no-descriptors'
    | 'bad-descriptor'
    | 'no-route'
    | 'route-failed'
    | 'timeout'
    | 'too-many'
    | 'dialer-gone'
  /** The dialer has a message socket; see `routeSeqpacket`. */
  type?: 'seqpacket'
  cause?: unknown
}

/** How a VMM reads and closes. */
export interface Ways {
  /** A command may come in pieces. */
  readonly pieces: boolean
  readonly halfClose: boolean
}

export interface Settings {
  readonly route: Route
  readonly ways: Ways
  readonly clock: Clock
  readonly handshakeTimeoutMs: number
  readonly maxPending: number
  readonly receiver: Binding | NoReceiver
}

/** Why this server receives no descriptors, and what a dialer that wants to pass one is refused with. */
export interface NoReceiver {
  readonly reason: 'bad-command' | 'no-descriptors'
  readonly why: string
}

/** What the server does for the handshake of one dialer. */
export interface Host {
  readonly settings: Settings
  /** A host port that is in use until the result's `release`. */
  takeHostPort(): { hostPort: number; release: () => void }
  /** The handshake has failed. Destroys the socket. */
  refuse(refusal: Refusal): void
  /** The guest's end is joined with `near`: the dialer's socket, or the stream of the descriptor that it passed. */
  joined(info: Joined): void
  /** The handshake is over, whatever became of it. */
  left(): void
}

export interface Joined {
  readonly near: Duplex
  readonly guest: Duplex
  readonly port: number
  readonly hostPort: number
  readonly passed: boolean
}

interface Asked {
  readonly port: number
  /** undefined: the dialer's socket itself is joined. */
  readonly pass?: { readonly keep: boolean; open(options: OpenOptions): Duplex; close(): void } | undefined
}

/** One dialer, from its first byte to the reply. */
export class Handshake {
  readonly #socket: VsockSocket
  /** Aborts when the socket closes. */
  readonly #signal: AbortSignal
  readonly #host: Host
  readonly #settings: Settings
  #asked: Asked | undefined
  #taken: { hostPort: number; release: () => void } | undefined
  #over = false
  #stopReading = () => {}
  #unwatch = () => {}
  readonly #cancelTimer: () => void

  constructor(socket: VsockSocket, signal: AbortSignal, host: Host) {
    this.#socket = socket
    this.#signal = signal
    this.#host = host
    this.#settings = host.settings
    this.#cancelTimer = setLongTimer(this.#settings.clock, this.#settings.handshakeTimeoutMs, () => this.#refuse('timeout'))
    socket.once('close', this.#onGone)
    this.#stopReading = this.#read()
  }

  #onGone = () => this.#refuse('dialer-gone')

  // Only without bytes for the guest: the guest gets those even if their dialer has gone. The reply is for a dialer that still listens.
  #onEnd = () => {
    if (!this.#settings.ways.halfClose && !this.#asked?.pass) return this.#onGone()
    // 'close' follows.
    this.#unwatch = watchPeer(this.#socket, this.#settings.clock)
  }

  #refuse(reason: Refusal['reason'], cause?: unknown): void {
    if (this.#over) return
    this.#leave()
    this.#asked?.pass?.close()
    this.#taken?.release()
    this.#host.refuse({ port: this.#asked?.port, reason, cause })
  }

  #leave(): void {
    this.#over = true
    this.#cancelTimer()
    this.#unwatch()
    this.#socket.off('end', this.#onEnd).off('close', this.#onGone)
    this.#stopReading()
    this.#host.left()
  }

  #read(): () => void {
    const { receiver, ways } = this.#settings
    let refusal: NoReceiver = { reason: 'no-descriptors', why: 'this process has no descriptor left for it' }
    if ('why' in receiver) {
      refusal = receiver
    } else {
      const descriptor = duplicateOf(receiver, this.#socket)
      if (descriptor) return receiveRequest(receiver, descriptor, ways.pieces, (request) => this.#onRequest(receiver, request))
    }
    return readCommand(this.#socket, ways.pieces, (result) => {
      if (result === undefined) this.#onGone()
      else if (result === 'passfd') this.#refuse(refusal.reason, new Error(refusal.why))
      else if (typeof result === 'string') this.#refuse('bad-command', new Error(result))
      else this.#ask({ port: result })
    })
  }

  #onRequest(binding: Binding, request: Request): void {
    if (request.kind === 'gone') return void this.#onGone()
    if (request.kind === 'refused') return void this.#refuse(request.reason, new Error(request.why))
    if (request.kind === 'connect') {
      // Node has not read a byte so far. A listener for a moment makes it begin, and leaves nothing behind.
      const none = () => {}
      this.#socket.on('readable', none).off('readable', none)
      return void this.#ask({ port: request.port })
    }
    const { port, keep, descriptor } = request
    const close = () => binding.close(descriptor)
    let open: (options: OpenOptions) => Duplex
    try {
      open = streamOf(binding, descriptor)
    } catch (error) {
      close()
      return void this.#refuse('bad-descriptor', error)
    }
    // What else the dialer says is dropped. Its end is heard.
    this.#socket.resume()
    this.#ask({ port, pass: { keep, open, close } })
  }

  #ask(asked: Asked): void {
    this.#asked = asked
    this.#socket.once('end', this.#onEnd)
    this.#taken = this.#host.takeHostPort()
    const { hostPort } = this.#taken
    // Inside a promise, so that throwing counts as rejecting.
    Promise.resolve()
      .then(() => this.#settings.route(asked.port, { signal: this.#signal, hostPort }))
      .then(
        (stream) => this.#answer(stream, asked, hostPort),
        (error) => this.#refuse('route-failed', error),
      )
  }

  #answer(stream: Duplex | undefined, asked: Asked, given: number): void {
    // Checked here, where it costs one connection: streams come from outside, some of them without types.
    if (stream && typeof stream.pipe !== 'function')
      return void this.#refuse('route-failed', new TypeError('route: must return a Duplex or undefined'))
    if (this.#over) return void stream?.on('error', () => {}).destroy()
    if (!stream || stream.destroyed) return void this.#refuse('no-route', stream?.errored ?? undefined)
    const { ways, clock } = this.#settings
    const { port, pass } = asked
    let near: Duplex = this.#socket
    if (pass) {
      try {
        near = pass.open({ keep: pass.keep, clock })
      } catch (error) {
        stream.on('error', () => {}).destroy()
        return void this.#refuse('bad-descriptor', error)
      }
    }
    const hostPort = hostPortOf(stream) ?? given
    this.#leave()
    near.once('close', this.#taken!.release)
    const reply = okReply(hostPort)
    if (pass) {
      this.#socket.write(reply, 'latin1')
      this.#socket.destroySoon()
    }
    join(near, stream, { halfClose: ways.halfClose, clock, reply: pass ? undefined : reply })
    this.#host.joined({ near, guest: stream, port, hostPort, passed: pass !== undefined })
  }
}

/**
 * Calls back once: with the port, with `passfd`, with what is wrong with the command, or with nothing if the dialer ended before it sent a
 * byte. Gives the bytes after the command back to the socket.
 */
function readCommand(
  socket: VsockSocket,
  pieces: boolean,
  done: (result: number | 'passfd' | (string & {}) | undefined) => void,
): () => void {
  let received: Buffer = Buffer.alloc(0)
  const onReadable = () => {
    const chunk: Buffer | null = socket.read()
    if (chunk === null) return
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
    const command = parseCommand(received)
    if (command.kind === 'incomplete' && pieces) return
    stop()
    if (command.kind === 'incomplete') return done('the command came in more than one piece')
    if (command.kind === 'invalid') return done(command.why)
    if (command.kind === 'passfd') return done('passfd')
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
