import type { Duplex } from 'node:stream'
import { onAbort } from '@upcall/foundation/abort'
import type { Clock } from '@upcall/foundation/clock'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import { type DirectOptions, DirectSocket } from './direct.js'
import { noSeqpacketError, outcomeError, tableFullError, wrongSocketError } from './errors.js'
import { HostMessages, isMessageSocket } from './host-messages.js'
import { HostStreams } from './join.js'
import type { Connection } from './machine/connection.js'
import type { VsockDevice } from './machine/device.js'
import type { MuxerOptions } from './machine/muxer.js'
import type { SocketType } from './machine/packet.js'
import { GuestMessages, type VsockMessageStream } from './message-stream.js'
import { GuestStream, type VsockStream } from './stream.js'
import { tell } from './tell.js'
import { trace } from './trace.js'

/** A connection that the guest asks for. */
export interface IncomingConnection {
  /** Aborts when the guest gives up, when the handshake's deadline passes, and when the device goes away. */
  readonly signal: AbortSignal
  /** The port that the guest's socket has. */
  readonly guestPort: number
  readonly guestCid: number
  /** The CID that the guest has dialled: one of `hostCids`. */
  readonly hostCid: number
  /** What the guest's socket is: `SOCK_STREAM` or `SOCK_SEQPACKET`. */
  readonly type: SocketType
  /** Lets the guest in and returns the stream. What the handler resolves with does not matter then. `EPROTOTYPE` for `seqpacket`. */
  accept(): VsockStream
  /** As `accept`, for a guest that has messages. `EPROTOTYPE` for `stream`. */
  acceptSeqpacket(): VsockMessageStream
}

/** What a handler gives the guest: a stream for `stream`, a message socket for `seqpacket`. */
export type ConnectionAnswer = Duplex | MessageSocket | undefined

/**
 * Answers a guest that connects to `port` on the host. The stream that it resolves with is joined with the guest both ways. For a
 * connection of the type `seqpacket` that is a message socket, for `stream` a Duplex. Undefined, without a call of `accept()`, refuses the guest
 * (RST), as do a rejection and what is not of the guest's type.
 */
export type ConnectionHandler = (port: number, incoming: IncomingConnection) => Promise<ConnectionAnswer> | ConnectionAnswer

export interface ConnectionsOptions {
  readonly device: VsockDevice
  readonly limits: MuxerOptions
  readonly clock: Clock
  readonly onConnection: ConnectionHandler | undefined
  /** Moves the bytes of joined sockets. Undefined: streams do. */
  readonly direct: DirectOptions | undefined
}

/** What wants to hear of a connection: the stream, or the handshake before there is one. */
interface Watcher {
  news(): void
}

/** A connection that is open, as its type has it. */
type Opened = GuestStream | GuestMessages

/** The connections of one guest as a program has them: promises and streams. */
export class Connections {
  readonly #options: ConnectionsOptions
  readonly #hosts: HostStreams
  readonly #messageHosts: HostMessages
  readonly #watchers = new Map<Connection, Watcher>()

  constructor(options: ConnectionsOptions) {
    this.#options = options
    this.#hosts = new HostStreams(options.limits.maxConnections)
    this.#messageHosts = new HostMessages(options.limits.maxConnections)
  }

  /** The connection opens, or the promise rejects with `VsockDeviceError`. The handshake has a deadline of its own. */
  connect(port: number, signal: AbortSignal | undefined): Promise<VsockStream> {
    return this.#connect(port, 'stream', signal) as Promise<GuestStream>
  }

  /** As `connect`, for messages. */
  connectSeqpacket(port: number, signal: AbortSignal | undefined): Promise<VsockMessageStream> {
    return this.#connect(port, 'seqpacket', signal) as Promise<GuestMessages>
  }

  #connect(port: number, type: SocketType, signal: AbortSignal | undefined): Promise<Opened> {
    const { device, limits, clock } = this.#options
    return new Promise((resolve, reject) => {
      const subject = this.#subject(port)
      if (type === 'seqpacket' && !device.muxer.seqpacket) {
        reject(noSeqpacketError(subject))
        return
      }
      const connection = device.muxer.connect(port, clock.now(), type)
      if (connection === undefined) {
        reject(tableFullError(subject, limits.maxConnections))
        return
      }
      const unlisten = onAbort(signal, () => connection.reset())
      this.#watchers.set(connection, {
        news: () => {
          if (connection.state === 'connecting') return
          unlisten()
          this.#watchers.delete(connection)
          const { opened, outcome } = connection
          // It may have spoken and closed since.
          if (opened && outcome !== 'aborted') resolve(this.#open(connection))
          else reject(outcomeError('connect', subject, outcome ?? 'reset', outcome === 'aborted' ? signal?.reason : undefined))
        },
      })
    })
  }

  /** Tells of everything that has happened to the connections since the last call. */
  deliverNews(): void {
    for (const connection of this.#options.device.muxer.takeNews()) {
      const { state, outcome, hostPort, guestPort } = connection
      if (state === 'closed')
        trace(
          { type: 'connection-ended', hostPort, guestPort, outcome },
          'guest port %d, host port %d: ended: %s',
          guestPort,
          hostPort,
          outcome,
        )
      // A listener of the stream may throw. The other connections have news, too.
      tell(() => {
        const watcher = this.#watchers.get(connection)
        if (watcher !== undefined) watcher.news()
        else if (state === 'accepting') this.#incoming(connection)
      })
    }
  }

  /** Every connection ends as if the guest had reset it, without a packet. Returns how many. */
  reset(): number {
    const { device, clock } = this.#options
    const count = device.abandon(clock.now())
    this.deliverNews()
    return count
  }

  #open(connection: Connection): Opened {
    const { clock, limits, direct } = this.#options
    const owner = {
      now: () => clock.now(),
      setTimer: (ms: number, fn: () => void) => clock.setTimer(ms, fn),
      forget: () => this.#watchers.delete(connection),
      direct: (guest: Duplex, host: Duplex) => direct && DirectSocket.between(direct, connection, guest, host),
    }
    const subject = this.#subject(connection.guestPort)
    const highWaterMark = Math.min(limits.bufferBytes, 64 * 1024)
    const opened =
      connection.type === 'stream'
        ? new GuestStream(connection, owner, { subject, highWaterMark, lingerMs: limits.lingerMs })
        : new GuestMessages(connection, owner, subject)
    this.#watchers.set(connection, opened)
    return opened
  }

  #incoming(connection: Connection): void {
    const { onConnection, limits } = this.#options
    if (onConnection === undefined) {
      connection.reset()
      return
    }
    const gone = new AbortController()
    const ended = () => outcomeError('accept', this.#subject(connection.guestPort), connection.outcome ?? 'reset')
    let opened: Opened | undefined
    this.#watchers.set(connection, {
      news: () => {
        if (connection.state !== 'closed') return
        this.#watchers.delete(connection)
        gone.abort(ended())
      },
    })
    const { guestPort, hostPort, hostCid, type } = connection
    const enter = (wanted: SocketType): Opened => {
      if (type !== wanted) throw wrongSocketError(this.#subject(guestPort), type)
      if (opened !== undefined) return opened
      // It may have ended a moment ago, before the signal tells of it.
      if (connection.state !== 'accepting') throw ended()
      connection.accept()
      opened = this.#open(connection)
      return opened
    }
    const accept = () => enter('stream') as GuestStream
    const acceptSeqpacket = () => enter('seqpacket') as GuestMessages
    const { guestCid } = limits
    const incoming = { signal: gone.signal, guestPort, guestCid, hostCid, type, accept, acceptSeqpacket }
    // Inside a promise, so that a handler that throws is a handler that rejects.
    Promise.resolve()
      .then(() => onConnection(hostPort, incoming))
      .then((host) => {
        if (opened !== undefined) return
        if (host === undefined) connection.reset()
        else if (connection.state !== 'accepting') this.#refuse(host, ended())
        else if (isMessageSocket(host) !== (type === 'seqpacket')) {
          connection.reset()
          this.#refuse(host, wrongSocketError(this.#subject(guestPort), type))
        } else if (isMessageSocket(host)) this.#messageHosts.join(acceptSeqpacket(), host)
        else if (host.destroyed) connection.reset()
        else this.#hosts.join(accept(), host)
      })
      .catch((error: unknown) => {
        if (opened === undefined) connection.reset()
        else opened.destroy(error instanceof Error ? error : undefined)
      })
  }

  /** The guest has gone while the handler was getting this, or has no use for it. */
  #refuse(host: Duplex | MessageSocket, error: Error): void {
    if (isMessageSocket(host)) {
      host.destroy(error)
      return
    }
    host.on('error', () => {})
    this.#hosts.breakOff(host, error)
  }

  #subject(port: number): string {
    return `guest ${this.#options.limits.guestCid} port ${port}`
  }
}
