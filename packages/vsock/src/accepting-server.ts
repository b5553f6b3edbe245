import { EventEmitter } from 'node:events'
import type { Acceptor } from './acceptor.js'
import { type Address, formatAddress } from './address.js'
import { iterateBy } from './iterate.js'
import { trace } from './trace.js'

/** Accepted connections that may wait until they are taken. */
export const DEFAULT_MAX_PENDING = 128

export interface ServerEvents<Accepted> {
  connection: [socket: Accepted]
  /** Accepting one connection failed (too many descriptors, say); the server goes on. Never thrown if there is no listener for it. */
  error: [error: Error]
  close: []
}

/** What the server does with a kind of socket. */
export interface SocketWays<Accepted> {
  /** Calls `fn` once, when the socket has closed. The result forgets it. */
  onClose(socket: Accepted, fn: () => void): () => void
  destroy(socket: Accepted): void
  /** Keeps the socket as it is until it is taken. The result lets it go. */
  hold(socket: Accepted): () => void
}

/**
 * Accepted sockets go to `'connection'` listeners if there are any, otherwise to an iterator. Until there is one they wait, at most
 * `maxPending` of them, unread, so that the kernel holds their senders back. A socket that was handed over belongs to its taker.
 */
export abstract class AcceptingServer<Accepted>
  extends EventEmitter<ServerEvents<Accepted> & { newListener: [event: string | symbol] }>
  implements AsyncIterable<Accepted>, AsyncDisposable
{
  /** What the server listens on. */
  readonly address: Address
  readonly #acceptor: Acceptor<Accepted>
  readonly #maxPending: number
  readonly #ways: SocketWays<Accepted>
  readonly #pending = new Map<Accepted, () => void>()
  readonly #takers: ((result: IteratorResult<Accepted, undefined>) => void)[] = []
  readonly #connections = new Set<Accepted>()
  #closed: Promise<void> | undefined

  /** @internal */
  constructor(acceptor: Acceptor<Accepted>, maxPending: number, ways: SocketWays<Accepted>) {
    super()
    this.address = acceptor.address
    this.#acceptor = acceptor
    this.#maxPending = maxPending
    this.#ways = ways
    this.on('newListener', (event) => {
      // After this tick, when the listener is in place.
      if (event === 'connection') process.nextTick(() => this.#drain())
    })
    acceptor.start({
      onConnection: (socket) => this.#offer(socket),
      onError: (error, closed) => {
        try {
          if (this.listenerCount('error') > 0) this.#emit('error', error)
        } finally {
          if (closed) void this.close()
        }
      },
    })
  }

  /** Open connections that came through this server, those handed over included. */
  get connections(): ReadonlySet<Accepted> {
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
    for (const socket of this.#connections) this.#ways.destroy(socket)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Yields sockets as they are taken, ends with `close()`. Leaving the loop does not close the server. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Accepted> {
    return iterateBy(() => this.#next())
  }

  // The compiler cannot tell the arguments of an event whose types are still open.
  #emit(event: keyof ServerEvents<Accepted>, ...args: unknown[]): void {
    ;(this as EventEmitter).emit(event, ...args)
  }

  #offer(socket: Accepted): void {
    this.#connections.add(socket)
    this.#ways.onClose(socket, () => this.#connections.delete(socket))
    if (this.#closed || this.#pending.size >= this.#maxPending) {
      trace({ type: 'dropped', local: this.address }, 'listen %s: dropped a connection', formatAddress(this.address))
      this.#ways.destroy(socket)
      return
    }
    // Until it is taken, a connection that goes away leaves the line. Its taker is to see everything that the peer says, its end included.
    const forget = this.#ways.onClose(socket, () => this.#pending.delete(socket))
    const release = this.#ways.hold(socket)
    this.#pending.set(socket, () => {
      forget()
      this.#pending.delete(socket)
      release()
    })
    this.#drain()
  }

  #drain(): void {
    for (const [socket, release] of this.#pending) {
      if (this.listenerCount('connection') > 0) {
        release()
        this.#emit('connection', socket)
        continue
      }
      const taker = this.#takers.shift()
      if (!taker) return
      release()
      taker({ done: false, value: socket })
    }
  }

  #next(): Promise<IteratorResult<Accepted, undefined>> {
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
      this.#ways.destroy(socket)
    }
    for (const taker of this.#takers.splice(0)) taker({ done: true, value: undefined })
    try {
      await this.#acceptor.stop()
    } finally {
      this.#emit('close')
    }
  }
}
