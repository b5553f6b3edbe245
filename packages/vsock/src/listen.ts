import { EventEmitter } from 'node:events'
import { debuglog } from 'node:util'
import { onAbort } from './abort.js'
import { type AcceptOptions, type Acceptor, checkAcceptOptions, openAcceptor } from './acceptor.js'
import { type Address, toAddress } from './address.js'
import { abortedError } from './errors.js'
import type { VsockSocket } from './socket.js'

export const debug = debuglog('upcall-vsock')

/** Accepted connections that may wait for somebody to take them. */
export const DEFAULT_MAX_PENDING = 128

export interface ListenOptions extends AcceptOptions {
  /** Closes the server; before it listens, `listen` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
  /** Accepted connections that wait for an iterator or a listener; any beyond are closed at once. Default 128. */
  maxPending?: number | undefined
}

export interface VsockServerEvents {
  connection: [socket: VsockSocket]
  /** Accepting one connection failed (too many descriptors, say); the server goes on. Never thrown if nobody listens. */
  error: [error: Error]
  close: []
}

/**
 * Listens on `unix:<path>`, on `vsock://<cid>:<port>` (both may be `any`), or on `hvsock://<path>:<port>` for what the guest itself
 * connects to host port `<port>`: the VMM brings it to `<path>_<port>`, without a handshake. A dead server's socket file is taken
 * over, never one in use nor another file.
 *
 * @throws {AddressError} for an address that cannot be bound; {RangeError} or {TypeError} for an option that is wrong.
 * @throws {VsockError} `EADDRINUSE`, `ABORTED`, or the kernel's errno.
 */
export async function listen(address: Address | string, options: ListenOptions = {}): Promise<VsockServer> {
  const local = toAddress(address)
  checkAcceptOptions(options)
  const { maxPending = DEFAULT_MAX_PENDING, signal } = options
  if (!Number.isInteger(maxPending) || maxPending < 1) throw new RangeError(`maxPending is ${maxPending}; at least 1`)
  const acceptor = await openAcceptor(local, options)
  if (signal?.aborted) {
    await acceptor.stop()
    throw abortedError('listen', local, signal.reason)
  }
  const server = new VsockServer(acceptor, maxPending)
  closeOnAbort(server, signal)
  return server
}

/** Ties a server's life to its caller's signal, for as long as it is open. */
export function closeOnAbort(
  server: { close(): Promise<void>; once(event: 'close', listener: () => void): unknown },
  signal: AbortSignal | undefined,
): void {
  const unlisten = onAbort(signal, () => {
    // Only a file that cannot be removed makes this fail, and nobody is left to be told.
    server.close().catch((error: Error) => debug('close: %s', error.message))
  })
  server.once('close', unlisten)
}

/**
 * Accepted sockets go to `'connection'` listeners if there are any, else to whoever iterates, else they wait (at most `maxPending`,
 * unread, so that the kernel holds their senders back). A socket that was handed over belongs to its taker.
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

  /** Made by `listen`. */
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
        this.#report(error)
        if (closed) void this.close()
      },
    })
  }

  /** Open connections that came through this server, those handed over included. */
  get connections(): ReadonlySet<VsockSocket> {
    return this.#connections
  }

  /**
   * Stops listening, removes the socket file and closes connections that nobody took. Those handed over live on, until their
   * owner or `closeAllConnections` ends them. Iterators finish. Twice is once.
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
      socket.destroy()
      return
    }
    // Until somebody takes it, its errors are nobody's, and one that goes away leaves the line.
    const ignoreError = () => {}
    const forget = () => this.#pending.delete(socket)
    socket.on('error', ignoreError).once('close', forget)
    this.#pending.set(socket, () => {
      socket.off('error', ignoreError).off('close', forget)
      this.#pending.delete(socket)
    })
    this.#drain()
  }

  #report(error: Error): void {
    debug('accept: %s', error.message)
    if (this.listenerCount('error') > 0) this.emit('error', error)
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
