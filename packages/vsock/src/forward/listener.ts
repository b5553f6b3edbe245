import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import { joinedPair } from '@upcall/foundation/pair'
import { type Address, formatAddress } from '../address.js'
import { type HybridProfile, listenHybrid } from '../hybrid.js'
import type { Refusal } from '../hybrid-handshake.js'
import { type InheritedSocket, isInherited } from '../inherited.js'
import { listen } from '../listen.js'
import type { VsockOptions } from '../native/options.js'
import { VsockSocket } from '../socket.js'
import { type Endpoint, type EndpointInit, formatEndpoint, toEndpoint } from './endpoint.js'
import { listenTcp } from './tcp.js'

/** A connection that waits to be taken. Nothing of it has been read. */
export interface Incoming {
  /** Its address as text, as far as the transport tells. */
  readonly remote: string
  /** Aborts when it is known to have gone. */
  readonly signal: AbortSignal
  /**
   * The caller owns the stream from then on. `halfClose`: its EOF in one direction leaves the other one open. `hostPort`: what the guest
   * sees as its peer's port, if that is known; a VMM tells the dialer.
   */
  accept(hostPort?: number): { socket: Duplex; halfClose: boolean }
  /** Closes it as the transport says that there is no connection: TCP by a reset, as a VMM without a reply. */
  refuse(): void
}

export interface EndpointListener {
  /** Where it listens, with the port that was chosen. */
  readonly address: Endpoint
  /** Takes no more connections; those that were accepted live on. */
  stop(): Promise<void>
  /** Ends with all that belongs to it. */
  close(): Promise<void>
}

export interface ListenEndpointOptions {
  /**
   * `hvsock://<path>:<port>` is the path itself: a VMM's end, answering CONNECT as `listenHybrid` does. Default false: what the guest
   * initiates, on `<path>_<port>`.
   */
  asVmm?: boolean | undefined
  /** As a VMM: which VMM to follow to the letter. */
  profile?: HybridProfile | undefined
  /** As a VMM: how long a dialer may wait for its reply, in milliseconds. Default 2000. */
  handshakeTimeoutMs?: number | undefined
  /** As for `listen`. */
  halfClose?: boolean | undefined
  /** As for `listen`. */
  lingerMs?: number | undefined
  /** Permissions of the socket file. */
  mode?: number | undefined
  clock?: Clock | undefined
  vsock?: VsockOptions | undefined
  /** As a VMM: a dialer was closed that asked for another port, or sent no CONNECT. */
  onRefused?: ((refusal: Refusal) => void) | undefined
  /** Accepting one connection failed; the listener goes on. */
  onError?: ((error: Error) => void) | undefined
}

/**
 * `listen`, for TCP and for a VMM's end of hybrid vsock, too. `{ fd }` is a socket that another program has bound. A connection is unread until it is accepted.
 *
 * @throws {AddressError}, {RangeError} or {TypeError} for an argument that is wrong; {VsockError} or {TcpError} where it cannot listen.
 */
export async function listenEndpoint(
  endpoint: EndpointInit | InheritedSocket,
  options: ListenEndpointOptions,
  onIncoming: (incoming: Incoming) => void,
): Promise<EndpointListener> {
  const { asVmm = false, onError = () => {} } = options
  if (isInherited(endpoint)) return listenPlain(endpoint, options, onIncoming)
  const local = toEndpoint(endpoint)
  if (local.transport === 'tcp') {
    const listener = await listenTcp(local, (socket) => onIncoming(incomingOf(socket, true, tcpRemote(socket))), onError)
    return { ...listener, close: listener.stop }
  }
  if (local.transport === 'hvsock' && asVmm) return listenAsVmm(local.path, local.port, options, onIncoming)
  return listenPlain(local, options, onIncoming)
}

async function listenPlain(
  local: Address | InheritedSocket,
  options: ListenEndpointOptions,
  onIncoming: (incoming: Incoming) => void,
): Promise<EndpointListener> {
  const { onError = () => {} } = options
  const server = await listen(local, { ...options, allowHalfOpen: true })
  server.on('connection', (socket) => onIncoming(incomingOf(socket, socket.halfClose, remoteOf(socket)))).on('error', onError)
  const stop = () => server.close()
  return { address: server.address, stop, close: stop }
}

async function listenAsVmm(
  path: string,
  guestPort: number,
  { profile, handshakeTimeoutMs, halfClose, mode, clock, onRefused, onError = () => {} }: ListenEndpointOptions,
  onIncoming: (incoming: Incoming) => void,
): Promise<EndpointListener> {
  let stopped = false
  const server = await listenHybrid({
    path,
    profile,
    handshakeTimeoutMs,
    halfClose,
    mode,
    clock,
    route(port, { signal, hostPort }) {
      if (stopped || port !== guestPort) return undefined
      return new Promise((resolve) =>
        onIncoming({
          remote: `host port ${hostPort}`,
          signal,
          accept(seen) {
            const [near, far] = joinedPair()
            resolve(seen === undefined ? far : Object.assign(far, { hostPort: seen }))
            return { socket: near, halfClose: true }
          },
          refuse: () => resolve(undefined),
        }),
      )
    },
  })
  server.on('error', onError).on('refused', (refusal) => {
    // The taker knows of those that it was offered.
    if (refusal.port !== guestPort) onRefused?.(refusal)
  })
  return {
    address: { transport: 'hvsock', path, port: guestPort },
    async stop() {
      stopped = true
    },
    close: () => server.close(),
  }
}

function incomingOf(socket: Socket, halfClose: boolean, remote: string): Incoming {
  const gone = new AbortController()
  // 'close' follows.
  socket.on('error', () => {})
  socket.once('close', () => gone.abort(new Error('the peer has closed the connection')))
  return {
    remote,
    signal: gone.signal,
    accept: () => ({ socket, halfClose }),
    refuse() {
      // The other end must not take it for a stream that ended in order.
      if (socket instanceof VsockSocket) socket.destroy()
      else socket.resetAndDestroy()
    },
  }
}

function tcpRemote({ remoteAddress: host, remotePort: port }: Socket): string {
  return host === undefined || port === undefined ? 'tcp' : formatEndpoint({ transport: 'tcp', host, port })
}

function remoteOf({ remote, local }: VsockSocket): string {
  const address = remote ?? local
  return address === undefined ? '' : formatAddress(address)
}
