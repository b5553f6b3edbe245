import { integer } from '@upcall/foundation/check'
import { AcceptingServer, DEFAULT_MAX_PENDING, type ServerEvents, type SocketWays } from './accepting-server.js'
import {
  type AcceptOptions,
  type Acceptor,
  checkAcceptOptions,
  closeOnAbort,
  givenUp,
  openAcceptor,
  placeOf,
} from './acceptor.js'
import type { Address } from './address.js'
import { holdReading, releaseReading } from './handle.js'
import type { InheritedSocket } from './inherited.js'
import type { VsockSocket } from './socket.js'

export interface ListenOptions extends AcceptOptions {
  /** Closes the server; before it listens, `listen` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
  /** Accepted connections that wait for an iterator or a listener; the server closes any more at once. Default 128. */
  maxPending?: number | undefined
}

export type VsockServerEvents = ServerEvents<VsockSocket>

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
export class VsockServer extends AcceptingServer<VsockSocket> {
  /** @internal Made by `listen`. */
  constructor(acceptor: Acceptor, maxPending: number) {
    super(acceptor, maxPending, WAYS)
  }
}

const WAYS: SocketWays<VsockSocket> = {
  onClose(socket, fn) {
    socket.once('close', fn)
    return () => socket.off('close', fn)
  },
  destroy: (socket) => void socket.destroy(),
  hold(socket) {
    // Until it is taken, its errors have no reader.
    const ignoreError = () => {}
    socket.on('error', ignoreError)
    holdReading(socket)
    return () => {
      socket.off('error', ignoreError)
      releaseReading(socket)
    }
  },
}
