import type { Duplex } from 'node:stream'
import { onAbort } from '@upcall/foundation/abort'
import type { Clock } from '@upcall/foundation/clock'
import { type DirectBinding, DirectSocket } from './direct.js'
import { outcomeError, tableFullError } from './errors.js'
import { HostStreams } from './join.js'
import type { Connection } from './machine/connection.js'
import type { VsockDevice } from './machine/device.js'
import type { MuxerOptions } from './machine/muxer.js'
import { GuestStream, type VsockStream } from './stream.js'
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
  /** Lets the guest in and returns the stream. What the handler resolves with does not matter then. */
  accept(): VsockStream
}

/**
 * Answers a guest that connects to `port` on the host. The stream that it resolves with is joined with the guest both ways. Undefined,
 * without a call of `accept()`, refuses the guest (RST), as does a rejection.
 */
export type ConnectionHandler = (port: number, incoming: IncomingConnection) => Promise<Duplex | undefined> | Duplex | undefined

export interface ConnectionsOptions {
  readonly device: VsockDevice
  readonly limits: MuxerOptions
  readonly clock: Clock
  readonly onConnection: ConnectionHandler | undefined
  /** Moves the bytes of joined sockets. Undefined: streams do. */
  readonly direct: DirectBinding | undefined
}

/** What wants to hear of a connection: the stream, or the handshake before there is one. */
interface Watcher {
  news(): void
}

/** The connections of one guest as a program has them: promises and streams. */
export class Connections {
  readonly #options: ConnectionsOptions
  readonly #hosts: HostStreams
  readonly #watchers = new Map<Connection, Watcher>()

  constructor(options: ConnectionsOptions) {
    this.#options = options
    this.#hosts = new HostStreams(options.limits.maxConnections)
  }

  /** The connection opens, or the promise rejects with `VsockDeviceError`. The handshake has a deadline of its own. */
  connect(port: number, signal: AbortSignal | undefined): Promise<VsockStream> {
    const { device, limits, clock } = this.#options
    return new Promise((resolve, reject) => {
      const subject = this.#subject(port)
      const connection = device.muxer.connect(port, clock.now())
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
      try {
        const watcher = this.#watchers.get(connection)
        if (watcher !== undefined) watcher.news()
        else if (state === 'accepting') this.#incoming(connection)
      } catch (error) {
        // A listener of the stream threw. That is the application's, as with any emitter; the other connections' news come first.
        process.nextTick(() => {
          throw error
        })
      }
    }
  }

  /** Every connection ends as if the guest had reset it, without a packet. Returns how many. */
  reset(): number {
    const { device, clock } = this.#options
    const count = device.abandon(clock.now())
    this.deliverNews()
    return count
  }

  #open(connection: Connection): GuestStream {
    const { clock, limits, direct } = this.#options
    const owner = {
      now: () => clock.now(),
      setTimer: (ms: number, fn: () => void) => clock.setTimer(ms, fn),
      forget: () => this.#watchers.delete(connection),
      direct: (guest: Duplex, host: Duplex) => direct && DirectSocket.between(direct, connection, guest, host),
    }
    const stream = new GuestStream(connection, owner, {
      subject: this.#subject(connection.guestPort),
      highWaterMark: Math.min(limits.bufferBytes, 64 * 1024),
      lingerMs: limits.lingerMs,
    })
    this.#watchers.set(connection, stream)
    return stream
  }

  #incoming(connection: Connection): void {
    const { onConnection, limits } = this.#options
    if (onConnection === undefined || connection.type !== 'stream') {
      connection.reset()
      return
    }
    const gone = new AbortController()
    const ended = () => outcomeError('accept', this.#subject(connection.guestPort), connection.outcome ?? 'reset')
    let stream: GuestStream | undefined
    this.#watchers.set(connection, {
      news: () => {
        if (connection.state !== 'closed') return
        this.#watchers.delete(connection)
        gone.abort(ended())
      },
    })
    const accept = (): GuestStream => {
      if (stream !== undefined) return stream
      // It may have ended a moment ago, before the signal tells of it.
      if (connection.state !== 'accepting') throw ended()
      connection.accept()
      stream = this.#open(connection)
      return stream
    }
    const { guestPort, hostPort, hostCid } = connection
    const incoming = { signal: gone.signal, guestPort, guestCid: limits.guestCid, hostCid, accept }
    // Inside a promise, so that a handler that throws is a handler that rejects.
    Promise.resolve()
      .then(() => onConnection(hostPort, incoming))
      .then((host) => {
        if (stream !== undefined) return
        if (host === undefined) connection.reset()
        else if (connection.state !== 'accepting') this.#refuse(host, ended())
        else if (host.destroyed) connection.reset()
        else this.#hosts.join(accept(), host)
      })
      .catch((error: unknown) => {
        if (stream === undefined) connection.reset()
        else stream.destroy(error instanceof Error ? error : undefined)
      })
  }

  /** The guest has gone while the handler was getting this stream. */
  #refuse(host: Duplex, error: Error): void {
    host.on('error', () => {})
    this.#hosts.breakOff(host, error)
  }

  #subject(port: number): string {
    return `guest ${this.#options.limits.guestCid} port ${port}`
  }
}
