import type { Server, ServerOpts } from 'node:net'
import { textOf } from '@upcall/foundation/error'
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
import { VsockError } from './errors.js'
import type { InheritedSocket } from './inherited.js'
import type { VsockSocket } from './socket.js'
import { trace } from './trace.js'

export interface BindServerOptions extends AcceptOptions {
  /** Closes the server; before it is bound, `bindServer` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
}

/** A server's place at an address. */
export interface BoundServer extends AsyncDisposable {
  /** What is bound: with the port that the kernel chose, if any port was asked for. */
  readonly address: Address
  /**
   * Closes the server as `server.close()` does, and resolves when the socket file is gone. It does not wait for open connections:
   * the server's `'close'` event does. Idempotent.
   */
  close(): Promise<void>
}

/**
 * Makes a `net.Server` of the caller's (`http.createServer()`, Fastify's `server`, a `tls` or `http2` server, …) listen on an
 * address, as `listen` does it: `unix:<path>`, `hvsock://<path>:<port>` for what the guest connects to, and `vsock://<cid>:<port>`.
 * A dead server's socket file is taken over, and `server.close()` removes the file. `{ fd }` is a socket that another program has bound.
 *
 * The server keeps its own ways: `'listening'`, `'connection'`, `'close'`, `server.listening`, `close()`, `ref()`, `unref()`,
 * `maxConnections` and `getConnections()` work as after `server.listen()`. `server.address()` is the path of the socket file, or the
 * text of the `vsock://` address. Until `bindServer` resolves, only its `signal` gives the binding up: the server is not listening, so
 * `server.close()` has nothing to close. Accepted sockets are `VsockSocket`s with `local` and, over AF_VSOCK, `remote`.
 *
 * @throws {AddressError} for an address that cannot be bound; {RangeError} or {TypeError} for an argument that is wrong.
 * @throws {VsockError} `EADDRINUSE`, `ABORTED`, `ERR_SERVER_ALREADY_LISTEN`, or the kernel's errno. The server is untouched then.
 */
export async function bindServer(
  server: Server,
  address: Address | string | InheritedSocket,
  options: BindServerOptions = {},
): Promise<BoundServer> {
  checkServer(server)
  checkAcceptOptions(options)
  const place = placeOf(address, options)
  const { local } = place
  if (server.listening) throw listensAlready(local)
  const acceptor = await openAcceptor(place, options, waysOf(server))
  if (options.signal?.aborted) throw await givenUp(acceptor, options.signal)
  if (server.listening) {
    await acceptor.stop()
    throw listensAlready(local)
  }
  const bound = attach(server, acceptor)
  closeOnAbort({ close: () => bound.close(), once: (event, listener) => server.once(event, listener) }, options.signal)
  return bound
}

/**
 * What `net.Server` keeps while it listens. Node's own methods work on these fields, which have had the same meaning since Node 0.10.
 * So a server whose handle is this package's closes, refs and counts as any other.
 */
interface Internals {
  _handle: Handle | null
  /** What `address()` gives where the handle cannot tell. */
  _pipeName?: string | undefined
  /** Connections that keep `'close'` waiting. */
  _connections: number
  _unref: boolean
  /** Emits `'close'` if there is neither a handle nor a connection. */
  _emitCloseIfDrained(): void
}

interface Handle {
  close(): void
  ref(): void
  unref(): void
}

/** What `net.Server` hands to each socket that it makes. */
function waysOf(server: Server): ServerOpts {
  const { allowHalfOpen = false, pauseOnConnect = false, highWaterMark } = server as ServerOpts
  return { allowHalfOpen, pauseOnConnect, ...(highWaterMark !== undefined && { highWaterMark }) }
}

function attach(server: Server, acceptor: Acceptor): BoundServer {
  const internals = server as unknown as Internals
  let removing: Promise<void> | undefined
  const handle: Handle = {
    close() {
      internals._pipeName = undefined
      // Keeps 'close' waiting for the file, as a connection would.
      internals._connections++
      removing = acceptor.stop().finally(() => release(internals))
      // close() below tells its caller. Here, only a file that cannot be removed makes this fail.
      removing.catch((error: unknown) => trace({ type: 'close-failed', error }, 'close: %s', textOf(error)))
    },
    ref: acceptor.ref,
    unref: acceptor.unref,
  }
  internals._handle = handle
  internals._pipeName = acceptor.path ?? formatAddress(acceptor.address)
  if (internals._unref) acceptor.unref()
  process.nextTick(() => {
    if (internals._handle === handle) server.emit('listening')
  })
  // There may be connections already. They come after 'listening', as in any server.
  process.nextTick(() =>
    acceptor.start({
      onConnection: (socket) => accept(server, internals, socket),
      onError(error, closed) {
        try {
          if (server.listenerCount('error') > 0) server.emit('error', error)
        } finally {
          if (closed && internals._handle === handle) server.close()
        }
      },
    }),
  )
  const close = async () => {
    if (internals._handle === handle) server.close()
    await removing
  }
  return { address: acceptor.address, close, [Symbol.asyncDispose]: close }
}

/** What `net.Server` does with a connection that the kernel gives it. */
function accept(server: Server, internals: Internals, socket: VsockSocket): void {
  if (typeof server.maxConnections === 'number' && internals._connections >= server.maxConnections) {
    socket.on('error', () => {}).destroy()
    trace({ type: 'dropped', local: socket.local }, 'dropped a connection: maxConnections are open')
    server.emit('drop')
    return
  }
  internals._connections++
  Object.assign(socket, { server })
  socket.once('close', () => release(internals))
  server.emit('connection', socket)
}

function release(internals: Internals): void {
  internals._connections--
  internals._emitCloseIfDrained()
}

function checkServer(server: unknown): void {
  const { listen, close, emit, _emitCloseIfDrained } = (server ?? {}) as Partial<Server & Internals>
  if ([listen, close, emit, _emitCloseIfDrained].every((method) => typeof method === 'function')) return
  throw new TypeError('server: must be a net.Server, such as http.createServer() makes')
}

function listensAlready(local: Address): VsockError {
  return new VsockError({
    code: 'ERR_SERVER_ALREADY_LISTEN',
    op: 'listen',
    local,
    what: 'the server listens already',
    next: 'Close it first: a server has one address.',
  })
}
