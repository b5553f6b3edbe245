import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import {
  checkClock,
  checkFunction,
  checkObject,
  checkString,
  duration,
  integer,
  wrongType,
  wrongValue,
} from '@upcall/foundation/check'
import { type Clock, systemClock } from '@upcall/foundation/clock'
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
   * How long a client may leave a reply unread when the stream's buffers are full, in milliseconds. It also bounds how long a
   * connection may take to end in order. Default 30,000.
   */
  writeTimeoutMs?: number | undefined
  /** How many connections may be open at once, an integer; one more is closed unread. Default: Infinity, as in the guest kernel. */
  maxConnections?: number | undefined
}

export interface UpcallServerEvents {
  /** A stream was taken over. Exactly once per `accept`. */
  connection: [connection: ServerConnection]
  /** Its stream has closed. Exactly once per `accept`. */
  disconnect: [connection: ServerConnection, end: Disconnect]
}

/**
 * The guest's end of the upcall channel: it takes connected streams, reads the service byte, and hands each connection to its service.
 * Connections are served concurrently. It never emits `'error'`: a failure on a connection ends that connection, and `'disconnect'`
 * says why.
 *
 * Everything that it does to its connections is published on the diagnostics channel `upcall:server`, as `{ server, connection, effect }`,
 * and printed under `NODE_DEBUG=upcall-server`. So is a fault of a service, with its stack, as
 * `{ server, connection, service, where, error }`.
 */
export class UpcallServer extends EventEmitter<UpcallServerEvents> implements AsyncDisposable {
  readonly #shared: Shared
  readonly #maxConnections: number
  readonly #connections = new Set<Connection>()
  #accepted = 0
  #closing: Promise<void> | undefined

  /** @throws TypeError or RangeError that names the wrong option. */
  constructor(options: UpcallServerOptions) {
    super()
    checkObject('options', options)
    const services = byByte(options.services)
    const { clock = systemClock, maxConnections = Number.POSITIVE_INFINITY } = options
    checkClock(clock)
    this.#shared = {
      server: this,
      clock,
      limits: {
        serviceByteTimeoutMs: duration('serviceByteTimeoutMs', options.serviceByteTimeoutMs, 10_000),
        writeTimeoutMs: duration('writeTimeoutMs', options.writeTimeoutMs, 30_000),
      },
      service: (byte) => services.get(byte),
    }
    if (maxConnections !== Number.POSITIVE_INFINITY && !(Number.isInteger(maxConnections) && maxConnections > 0))
      wrongValue('maxConnections', 'an integer above 0 or Infinity', maxConnections)
    this.#maxConnections = maxConnections
  }

  /** The connections that are open now. */
  get connections(): ReadonlySet<ServerConnection> {
    return this.#connections
  }

  /**
   * Takes over a connected stream: from here on the server reads, writes, ends and destroys it. After `close()` it is destroyed at once.
   *
   * @param stream - Its `allowHalfOpen` is set to true: a client that ends its half still gets the replies to what it sent.
   * @param options - `remote`: the other end, for messages.
   * @throws TypeError if it is not a Duplex stream.
   */
  accept(stream: Duplex, options: { remote?: string | undefined } = {}): ServerConnection {
    if (!isDuplex(stream)) wrongType('stream', 'a Duplex stream', stream)
    checkObject('options', options)
    const { remote = '' } = options
    checkString('remote', remote)
    stream.allowHalfOpen = true
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

  /** Ends every connection at once. Resolves when each stream has closed. Idempotent. */
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
    wrongType('services', 'an iterable of services', services)
  const found = new Map<number, GuestService>()
  for (const service of services) {
    const path = `services[${found.size}]`
    checkObject(path, service, 'a GuestService object')
    const byte = integer(`${path}.byte`, service.byte, { max: 0xff })
    if (found.has(byte)) throw new RangeError(`${path}.byte: must be free, but 0x${byte.toString(16)} belongs to another service`)
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
