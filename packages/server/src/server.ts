import { channel } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { checkFunction, checkObject, positive, show } from './check.js'
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
  /** How many connections may be open at once, an integer; one more is closed unread. Default: Infinity, any number, as in the guest kernel. */
  maxConnections?: number | undefined
}

export interface UpcallServerEvents {
  /** A stream was taken over. Exactly once per `accept`. */
  connection: [connection: ServerConnection]
  /** Its stream has closed. Exactly once per `accept`. */
  disconnect: [connection: ServerConnection, end: Disconnect]
}

const diagnostics = channel('upcall:server')

/**
 * The guest's end of the upcall channel: takes connected streams, reads the service byte, and hands each connection to its service.
 * Connections are served concurrently. It never emits `'error'`: what goes wrong on a connection ends that connection, and
 * `'disconnect'` says why.
 *
 * What a service does wrong is also published on the diagnostics channel `upcall:server`, as
 * `{ server, connection, service, where, error }`, and logged with its stack under `NODE_DEBUG=upcall`.
 */
export class UpcallServer extends EventEmitter<UpcallServerEvents> implements AsyncDisposable {
  readonly #shared: Shared
  readonly #maxConnections: number
  readonly #connections = new Set<Connection>()
  #accepted = 0
  #closing: Promise<void> | undefined

  /** @throws TypeError or RangeError that names the option: a service that is none, a byte that is none or is taken twice, a timeout or limit that is not positive. */
  constructor(options: UpcallServerOptions) {
    super()
    checkObject('options', options)
    const services = byByte(options.services)
    const { clock = systemClock, serviceByteTimeoutMs = 10_000, writeTimeoutMs = 30_000 } = options
    const { maxConnections = Number.POSITIVE_INFINITY } = options
    checkObject('clock', clock, 'an object with now and setTimer')
    checkFunction('clock.now', clock.now)
    checkFunction('clock.setTimer', clock.setTimer)
    this.#shared = {
      clock,
      limits: {
        serviceByteTimeoutMs: positive('serviceByteTimeoutMs', serviceByteTimeoutMs),
        writeTimeoutMs: positive('writeTimeoutMs', writeTimeoutMs),
      },
      service: (byte) => services.get(byte),
      onServiceError: (connection, fault) => diagnostics.publish({ server: this, connection, ...fault }),
    }
    if (maxConnections !== Number.POSITIVE_INFINITY && !(Number.isInteger(maxConnections) && maxConnections > 0))
      throw new RangeError(`maxConnections: must be a positive integer or Infinity, got ${show(maxConnections)}`)
    this.#maxConnections = maxConnections
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
   * @throws TypeError if the stream is none.
   */
  accept(stream: Duplex, options: { remote?: string | undefined } = {}): ServerConnection {
    if (!isDuplex(stream)) throw new TypeError(`stream: must be a Duplex stream, got ${show(stream)}`)
    checkObject('options', options)
    const { remote = '' } = options
    if (typeof remote !== 'string') throw new TypeError(`remote: must be a string, got ${show(remote)}`)
    this.#accepted += 1
    const connection = new Connection(stream, this.#accepted, remote, this.#shared)
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
  if (typeof services !== 'object' || typeof services?.[Symbol.iterator] !== 'function')
    throw new TypeError(`services: must be an iterable of services, got ${show(services)}`)
  const found = new Map<number, GuestService>()
  for (const service of services) {
    const path = `services[${found.size}]`
    checkObject(path, service, 'a GuestService object')
    const { byte } = service
    if (!Number.isInteger(byte) || byte < 0 || byte > 0xff)
      throw new RangeError(`${path}.byte: must be an integer in 0 … 255, got ${show(byte)}`)
    if (found.has(byte)) throw new RangeError(`${path}.byte: 0x${byte.toString(16)} already belongs to another service`)
    checkFunction(`${path}.open`, service.open)
    if (service.available !== undefined) checkFunction(`${path}.available`, service.available, 'a function or left out')
    found.set(byte, service)
  }
  return found
}

function isDuplex(value: unknown): value is Duplex {
  if (typeof value !== 'object' || value === null) return false
  return ['on', 'resume', 'pause', 'write', 'end', 'destroy'].every((name) => typeof Reflect.get(value, name) === 'function')
}
