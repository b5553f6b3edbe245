import { checkClock, checkObject, checkSignal, integer } from '@upcall/foundation/check'
import { AcceptingServer, DEFAULT_MAX_PENDING, type ServerEvents, type SocketWays } from '../accepting-server.js'
import { type Acceptor, closeOnAbort, givenUp } from '../acceptor.js'
import type { SeqpacketAddress } from '../address.js'
import { checkBindOptions } from '../bind.js'
import type { InheritedSocket } from '../inherited.js'
import type { ListenOptions } from '../listen.js'
import { checkVsockOptions } from '../native/options.js'
import { openSeqpacketAcceptor, seqpacketPlaceOf } from './acceptor.js'
import { checkSeqpacketOptions, type SeqpacketOptions } from './connect.js'
import type { SeqpacketSocket } from './socket.js'

/** As for `listen`, but for half-close: each direction of a message socket always ends by itself. */
export interface ListenSeqpacketOptions
  extends SeqpacketOptions,
    Pick<ListenOptions, 'signal' | 'maxPending' | 'mode' | 'backlog' | 'clock' | 'vsock'> {}

export type SeqpacketServerEvents = ServerEvents<SeqpacketSocket>

/**
 * Listens for message sockets (`SOCK_SEQPACKET`) on `unix+seq:<path>`, on `vsock+seq://<cid>:<port>` (both may be `any`), or on
 * `hvsock+seq://<path>:<port>` for what the guest itself connects to host port `<port>`: the VMM brings it to `<path>_<port>`, without a
 * handshake; so a port serves streams or messages. It needs the addon on each of them. The socket file of a dead server is taken over; a
 * live server's, or another file, never.
 *
 * `{ fd }` is such a socket, Unix or AF_VSOCK, that another program has bound, systemd for example (`listenFds`,
 * `ListenSequentialPacket=`). The server owns the descriptor and closes it. It does not remove the socket file.
 *
 * `hvsock+seq://` is a draft that may change; see `connectSeqpacket`.
 *
 * @throws {AddressError} for an address that cannot be bound; {RangeError} or {TypeError} for an option that is wrong.
 * @throws {VsockError} `EADDRINUSE`, `ABORTED`, `ENOTSUP` (no addon), or the kernel's errno; for a descriptor what `listen` says of one.
 */
export async function listenSeqpacket(
  address: SeqpacketAddress | string | InheritedSocket,
  options: ListenSeqpacketOptions = {},
): Promise<SeqpacketServer> {
  checkObject('options', options)
  const { signal, clock, vsock } = options
  checkSignal(signal)
  checkBindOptions(options)
  if (clock !== undefined) checkClock(clock)
  checkVsockOptions(vsock ?? {})
  checkSeqpacketOptions(options)
  const maxPending = integer('maxPending', options.maxPending ?? DEFAULT_MAX_PENDING, { min: 1 })
  const acceptor = await openSeqpacketAcceptor(seqpacketPlaceOf(address, options), options)
  if (signal?.aborted) throw await givenUp(acceptor, signal)
  const server = new SeqpacketServer(acceptor, maxPending)
  closeOnAbort(server, signal)
  return server
}

/** As `VsockServer`, for message sockets. */
export class SeqpacketServer extends AcceptingServer<SeqpacketSocket> {
  /** @internal Made by `listenSeqpacket`. */
  constructor(acceptor: Acceptor<SeqpacketSocket>, maxPending: number) {
    super(acceptor, maxPending, WAYS)
  }
}

const WAYS: SocketWays<SeqpacketSocket> = {
  onClose(socket, fn) {
    let wanted = true
    void socket.closed.then(() => wanted && fn())
    return () => {
      wanted = false
    }
  },
  destroy: (socket) => socket.destroy(),
  // Nothing is read before a call of receive().
  hold: () => () => {},
}
