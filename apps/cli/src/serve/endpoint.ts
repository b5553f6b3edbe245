import type { Duplex } from 'node:stream'
import { joinedPair } from '@upcall/foundation/pair'
import {
  type Address,
  AddressError,
  formatAddress,
  type HybridProfile,
  isVsockError,
  listen,
  listenHybrid,
  type Refusal,
} from '@upcall/vsock'
import { UsageError } from '../errors.js'
import type { ListenOn } from '../streams/endpoint.js'

export interface OpenEndpoint {
  /** Where it listens, with the port that was chosen for `any`. */
  readonly address: string
  /** Closes the connections and removes the socket file. */
  close(): Promise<void>
}

/**
 * Where clients arrive. `hvsock://<path>:<port>` is served on the path itself, as a VMM does: a client that says `CONNECT <port>` reaches
 * the guest, and one with another port is closed. On `unix:` every connection is the guest's.
 *
 * @param accept - Takes a stream over.
 * @param refused - Hears of each client that was closed before.
 * @param profile - Of `hvsock://`: which VMM to follow to the letter.
 */
export async function openEndpoint(
  address: ListenOn<Address>,
  accept: (stream: Duplex, remote: string) => void,
  refused: (refusal: Refusal) => void,
  profile?: HybridProfile,
): Promise<OpenEndpoint> {
  try {
    if (!('fd' in address) && address.transport === 'hvsock') {
      const server = await listenHybrid({
        path: address.path,
        profile,
        route: (port, { hostPort }) => {
          if (port !== address.port) return undefined
          const [guest, vmm] = joinedPair()
          accept(guest, `host port ${hostPort}`)
          return vmm
        },
      })
      server.on('refused', refused)
      return { address: formatAddress(address), close: () => server.close() }
    }
    const server = await listen(address, { allowHalfOpen: true })
    server.on('connection', (socket) => accept(socket, formatAddress(socket.remote ?? server.address)))
    return {
      address: formatAddress(server.address),
      async close() {
        server.closeAllConnections()
        await server.close()
      },
    }
  } catch (error) {
    if (isVsockError(error) || error instanceof AddressError) throw UsageError.of('--listen', error)
    throw error
  }
}
