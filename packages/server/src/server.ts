import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { type Clock, systemClock } from './clock.js'
import { Connection, type ServerConnection, type Shared } from './connection.js'
import type { Disconnect } from './machine/end.js'
import type { GuestService } from './service.js'

export interface UpcallServerOptions {
  /** What the guest offers, one service per byte. */
  services: Iterable<GuestService>
  /** Default: the platform's. */
  clock?: Clock | undefined
  /** How long a client may take to send its service byte, in milliseconds. Default 10,000, as in the guest kernel. */
  serviceByteTimeoutMs?: number | undefined
  /**
   * How long a client may leave what is written to it unread once the stream's buffers are full, in milliseconds. Also the bound on
   * closing a connection in peace. Default 30,000.
   */
  writeTimeoutMs?: number | undefined
  /** How many connections may be open at once; one more is closed unread. Default: any number, as in the guest kernel. */
  maxConnections?: number | undefined
}

export interface UpcallServerEvents {
  /** A stream was taken over. Exactly once per `accept`. */
  connection: [connection: ServerConnection]
  /** Its stream has closed. Exactly once per `accept`. */
  disconnect: [connection: ServerConnection, end: Disconnect]
}

/**
 * The guest's end of the upcall channel: takes connected streams, reads the service byte, and hands each connection to its service.
 * Connections are served concurrently. It never emits `'error'`: what goes wrong on a connection ends that connection, and
 * `'disconnect'` says why.
 */
export class UpcallServer extends EventEmitter<UpcallServerEvents> implements AsyncDisposable {
  readonly #shared: Shared
  readonly #maxConnections: number
  readonly #connections = new Set<Connection>()
  #accepted = 0
  #closing: Promise<void> | undefined

  /** @throws `RangeError` for a service byte that is no byte or is taken twice, and for a timeout or limit that is not positive. */
  constructor(options: UpcallServerOptions) {
    super()
    const services = byByte(options.services)
    this.#shared = {
      clock: options.clock ?? systemClock,
      limits: {
        serviceByteTimeoutMs: positive('serviceByteTimeoutMs', options.serviceByteTimeoutMs ?? 10_000),
        writeTimeoutMs: positive('writeTimeoutMs', options.writeTimeoutMs ?? 30_000),
      },
      service: (byte) => services.get(byte),
    }
    this.#maxConnections = positive('maxConnections', options.maxConnections ?? Number.POSITIVE_INFINITY)
  }

  /** The connections that are open now. */
  get connections(): ReadonlySet<ServerConnection> {
    return this.#connections
  }

  /**
   * Takes over a connected stream: from here on the server reads, writes, ends and destroys it. After `close()` it is destroyed at once.
   *
   * @param stream - With `allowHalfOpen: true` a client that ends its half still gets the replies to what it sent.
   * @param options - `remote`: who is at the other end, for messages.
   */
  accept(stream: Duplex, options: { remote?: string | undefined } = {}): ServerConnection {
    this.#accepted += 1
    const connection = new Connection(stream, this.#accepted, options.remote ?? '', this.#shared)
    const full = this.#connections.size >= this.#maxConnections
    this.#connections.add(connection)
    connection.start()
    if (this.#closing !== undefined) connection.stop({ reason: 'server-closed' })
    else if (full) connection.stop({ reason: 'limit' })
    void connection.closed.then((end) => {
      this.#connections.delete(connection)
      this.emit('disconnect', connection, end)
    })
    this.emit('connection', connection)
    return connection
  }

  /** Ends every connection at once. Resolves when each stream has closed. Twice is once. */
  close(): Promise<void> {
    this.#closing ??= Promise.all([...this.#connections].map((connection) => connection.close())).then(() => {})
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function byByte(services: Iterable<GuestService>): Map<number, GuestService> {
  const found = new Map<number, GuestService>()
  for (const service of services) {
    const { byte } = service
    if (!Number.isInteger(byte) || byte < 0 || byte > 0xff)
      throw new RangeError(`services[${found.size}].byte: must be an integer in 0 … 255, got ${byte}`)
    if (found.has(byte))
      throw new RangeError(`services[${found.size}].byte: 0x${byte.toString(16)} already belongs to another service`)
    found.set(byte, service)
  }
  return found
}

function positive(name: string, value: number): number {
  if (typeof value !== 'number' || !(value > 0)) throw new RangeError(`${name}: must be a positive number, got ${value}`)
  return value
}
