import { createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  AddressError,
  formatAddress,
  type HybridProfile,
  isVsockError,
  listen,
  listenHybrid,
  type Refusal,
  type VsockOptions,
  VsockSocket,
} from '@upcall/vsock'
import { UsageError } from '../errors.js'
import type { EventLog } from '../events.js'
import { type Endpoint, formatEndpoint, type TcpAddress } from './endpoint.js'
import { TcpError } from './error.js'
import { joinedPair } from './pair.js'

/** A connection that waits to be taken. Nothing of it has been read. */
export interface Incoming {
  /** Its address, as far as the transport tells. */
  readonly remote: string
  /** Aborts when it is known to have gone. */
  readonly signal: AbortSignal
  accept(): { socket: Duplex; halfClose: boolean }
  refuse(): void
}

export interface Listener {
  /** Where it listens, with the port that was chosen. */
  readonly address: string
  /** Takes no more connections; those that were accepted live on. */
  stop(): Promise<void>
  /** Ends with all that belongs to it. */
  close(): Promise<void>
}

export interface ListenerOptions {
  /** `hvsock://<path>:<port>` is the path itself: a VMM's end, answering CONNECT. Otherwise what the guest initiates: `<path>_<port>`. */
  asVmm?: boolean | undefined
  /** As a VMM: which VMM to follow to the letter. */
  profile?: HybridProfile | undefined
  /** As a VMM: how long a dialer may wait for its OK. */
  handshakeTimeoutMs?: number | undefined
  halfClose?: boolean | undefined
  lingerMs?: number | undefined
  /** Permissions of the socket file. */
  mode?: number | undefined
  vsock?: VsockOptions | undefined
  /** As a VMM: a dialer was closed that asked for another port, or sent no CONNECT. */
  onRefused?: ((refusal: Refusal) => void) | undefined
}

/** @throws UsageError with the reason, where it cannot listen. `source` is where the user wrote the address. */
export async function openListener(
  endpoint: Endpoint,
  source: string,
  options: ListenerOptions,
  onIncoming: (incoming: Incoming) => void,
): Promise<Listener> {
  try {
    if (endpoint.transport === 'tcp') return await listenTcp(endpoint, onIncoming)
    if (endpoint.transport === 'hvsock' && options.asVmm) {
      return await listenAsVmm(endpoint.path, endpoint.port, options, onIncoming)
    }
    const server = await listen(endpoint, { ...options, allowHalfOpen: true })
    server.on('connection', (socket) => onIncoming(incomingOf(socket, socket.halfClose, remoteOf(socket))))
    const stop = () => server.close()
    return { address: formatAddress(server.address), stop, close: stop }
  } catch (error) {
    if (isVsockError(error) || error instanceof AddressError || error instanceof TcpError) throw UsageError.of(source, error)
    throw error
  }
}

async function listenAsVmm(
  path: string,
  guestPort: number,
  { profile, handshakeTimeoutMs, halfClose, mode, onRefused }: ListenerOptions,
  onIncoming: (incoming: Incoming) => void,
): Promise<Listener> {
  let stopped = false
  const server = await listenHybrid({
    path,
    profile,
    handshakeTimeoutMs,
    halfClose,
    mode,
    route(port, { signal, hostPort }) {
      if (stopped || port !== guestPort) return undefined
      return new Promise((resolve) =>
        onIncoming({
          remote: `host port ${hostPort}`,
          signal,
          accept() {
            const [near, far] = joinedPair()
            resolve(far)
            return { socket: near, halfClose: true }
          },
          refuse: () => resolve(undefined),
        }),
      )
    },
  })
  server.on('refused', (refusal) => {
    // The command reports the dialers that it was offered.
    if (refusal.port !== guestPort) onRefused?.(refusal)
  })
  return {
    address: formatAddress({ transport: 'hvsock', path, port: guestPort }),
    async stop() {
      stopped = true
    },
    close: () => server.close(),
  }
}

const REFUSALS: Readonly<Record<Refusal['reason'], string>> = {
  'bad-command': 'it did not send CONNECT <port>',
  'no-route': 'that port is not served here',
  'route-failed': 'that port cannot be reached',
  timeout: 'the handshake took too long',
  'too-many': 'too many clients wait for their reply',
  'dialer-gone': 'it left before the reply',
}

/** Logs a client that was closed before it was served: the line for a person, `reason` for a program. */
export function logRefusal(log: EventLog, { port, reason }: Refusal): void {
  const at = port === undefined ? '' : `port ${port}: `
  log.event({ event: 'refused', reason: `${at}${reason}` }, () => `a client was closed: ${at}${REFUSALS[reason]}`)
}

function listenTcp(address: TcpAddress, onIncoming: (incoming: Incoming) => void): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true })
    server.on('connection', (socket) => {
      const { remoteAddress: host, remotePort: port } = socket
      const remote = host === undefined || port === undefined ? 'tcp' : formatEndpoint({ transport: 'tcp', host, port })
      onIncoming(incomingOf(socket, true, remote))
    })
    const onError = (cause: Error) => reject(new TcpError('listen', address, cause))
    server.once('error', onError)
    server.listen({ host: address.host, port: address.port, exclusive: true }, () => {
      server.off('error', onError)
      // Out of descriptors, for example: the connection waits, and the server goes on.
      server.on('error', () => {})
      const { port } = server.address() as { port: number }
      const stop = async () => void server.close()
      resolve({ address: formatEndpoint({ ...address, port }), stop, close: stop })
    })
  })
}

function incomingOf(socket: Socket, halfClose: boolean, remote: string): Incoming {
  const gone = new AbortController()
  // 'close' follows.
  socket.on('error', () => {})
  socket.once('close', () => gone.abort())
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

function remoteOf({ remote, local }: VsockSocket): string {
  const address = remote ?? local
  return address === undefined ? '' : formatAddress(address)
}
