import { EventEmitter } from 'node:events'
import { integer } from '@upcall/foundation/check'
import {
  type AcceptOptions,
  type Acceptor,
  checkAcceptOptions,
  closeOnAbort,
  givenUp,
  openAcceptor,
  placeOf,
} from './acceptor.js'
import { type Address, formatAddress } from './address.js'
import { holdReading, releaseReading } from './handle.js'
import type { InheritedSocket } from './inherited.js'
import type { VsockSocket } from './socket.js'
import { trace } from './trace.js'

/** Accepted connections that may wait until they are taken. */
const DEFAULT_MAX_PENDING = 128

export interface ListenOptions extends AcceptOptions {
  /** Closes the server; before it listens, `listen` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
  /** Accepted connections that wait for an iterator or a listener; the server closes any more at once. Default 128. */
  maxPending?: number | undefined
}

export interface VsockServerEvents {
  connection: [socket: VsockSocket]
  /** Accepting one connection failed (too many descriptors, say); the server goes on. Never thrown if there is no listener for it. */
  error: [error: Error]
  close: []
}

/**
 * Listens on `unix:<path>`, on `vsock://<cid>:<port>` (both may be `any`), or on `hvsock://<path>:<port>` for what the guest itself
 * connects to host port `<port>`: the VMM brings it to `<path>_<port>`, without a handshake. The socket file of a dead server is taken
 * over; a live server's, or another file, never.
 *
 * `{ fd }` is a Unix or AF_VSOCK socket that another program has bound, systemd for example (`listenFds`). The server owns the descriptor
 * and closes it. It does not remove the socket file. AF_VSOCK needs the addon.
 *
 * @throws {AddressError} for an address that cannot be bound; {RangeError} or {TypeError} for an option that is wrong.
 * @throws {VsockError} `EADDRINUSE`, `ABORTED`, or the kernel's errno; for a descriptor `EBADF`, `ENOTSOCK`, `ESOCKTNOSUPPORT`,
 *   `EAFNOSUPPORT`, `EISCONN`, `EINVAL`, `EEXIST` (this process uses it already) or `ENOTSUP`.
 */
export async function listen(address: Address | string | InheritedSocket, options: ListenOptions = {}): Promise<VsockServer> {
  checkAcceptOptions(options)
  const place = placeOf(address, options)
  const maxPending = integer('maxPending', options.maxPending ?? DEFAULT_MAX_PENDING, { min: 1 })
  const acceptor = await openAcceptor(place, options)
  if (options.signal?.aborted) throw await givenUp(acceptor, options.signal)
  const server = new VsockServer(acceptor, maxPending)
  closeOnAbort(server, options.signal)
  return server
}

/**
 * Accepted sockets go to `'connection'` listeners if there are any, otherwise to an iterator. Until there is one they wait, at most
 * `maxPending` of them, unread, so that the kernel holds their senders back. A socket that was handed over belongs to its taker.
 */
export class VsockServer
  extends EventEmitter<VsockServerEvents & { newListener: [event: string | symbol] }>
  implements AsyncIterable<VsockSocket>, AsyncDisposable
{
  /** What the server listens on. */
  readonly address: Address
  readonly #acceptor: Acceptor
  readonly #maxPending: number
  readonly #pending = new Map<VsockSocket, () => void>()
  readonly #takers: ((result: IteratorResult<VsockSocket, undefined>) => void)[] = []
  readonly #connections = new Set<VsockSocket>()
  #closed: Promise<void> | undefined

  /** @internal Made by `listen`. */
  constructor(acceptor: Acceptor, maxPending: number) {
    super()
    this.address = acceptor.address
    this.#acceptor = acceptor
    this.#maxPending = maxPending
    this.on('newListener', (event) => {
      // After this tick, when the listener is in place.
      if (event === 'connection') process.nextTick(() => this.#drain())
    })
    acceptor.start({
      onConnection: (socket) => this.#offer(socket),
      onError: (error, closed) => {
        try {
          if (this.listenerCount('error') > 0) this.emit('error', error)
        } finally {
          if (closed) void this.close()
        }
      },
    })
  }

  /** Open connections that came through this server, those handed over included. */
  get connections(): ReadonlySet<VsockSocket> {
    return this.#connections
  }

  /**
   * Stops listening, removes the socket file and closes connections that were not taken. Those handed over live on, until their
   * owner or `closeAllConnections` ends them. Iterators finish. Idempotent.
   */
  close(): Promise<void> {
    this.#closed ??= this.#shut()
    return this.#closed
  }

  /** Keeps the process alive while listening, which is the default. */
  ref(): this {
    this.#acceptor.ref()
    return this
  }

  /** Lets the process exit although the server listens; connections have their own `unref`. */
  unref(): this {
    this.#acceptor.unref()
    return this
  }

  /** Destroys every connection that came through this server. */
  closeAllConnections(): void {
    for (const socket of this.#connections) socket.destroy()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Yields sockets as they are taken, ends with `close()`. Leaving the loop does not close the server. */
  [Symbol.asyncIterator](): AsyncIterableIterator<VsockSocket> {
    let done = false
    return {
      next: () => {
        if (done) return Promise.resolve({ done: true, value: undefined })
        return this.#next()
      },
      return: () => {
        done = true
        return Promise.resolve({ done: true, value: undefined })
      },
      [Symbol.asyncIterator]() {
        return this
      },
    }
  }

  #offer(socket: VsockSocket): void {
    this.#connections.add(socket)
    socket.once('close', () => this.#connections.delete(socket))
    if (this.#closed || this.#pending.size >= this.#maxPending) {
      trace({ type: 'dropped', local: this.address }, 'listen %s: dropped a connection', formatAddress(this.address))
      socket.destroy()
      return
    }
    // Until it is taken, its errors have no reader, and a connection that goes away leaves the line.
    const ignoreError = () => {}
    const forget = () => this.#pending.delete(socket)
    socket.on('error', ignoreError).once('close', forget)
    // Its taker is to see everything that the peer says, its end included.
    holdReading(socket)
    this.#pending.set(socket, () => {
      socket.off('error', ignoreError).off('close', forget)
      this.#pending.delete(socket)
      releaseReading(socket)
    })
    this.#drain()
  }

  #drain(): void {
    for (const [socket, release] of this.#pending) {
      if (this.listenerCount('connection') > 0) {
        release()
        this.emit('connection', socket)
        continue
      }
      const taker = this.#takers.shift()
      if (!taker) return
      release()
      taker({ done: false, value: socket })
    }
  }

  #next(): Promise<IteratorResult<VsockSocket, undefined>> {
    if (this.#closed) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => {
      this.#takers.push(resolve)
      this.#drain()
    })
  }

  async #shut(): Promise<void> {
    // In the next microtask, so that whatever is done here meets a #closed that is set.
    await undefined
    for (const [socket, release] of this.#pending) {
      release()
      socket.destroy()
    }
    for (const taker of this.#takers.splice(0)) taker({ done: true, value: undefined })
    try {
      await this.#acceptor.stop()
    } finally {
      this.emit('close')
    }
  }
}
