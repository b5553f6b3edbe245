import { type Duplex, duplexPair } from 'node:stream'
import { type Address, AddressError, formatAddress, isVsockError, listen, listenHybrid } from '@upcall/vsock'
import { UsageError } from '../exit.js'

/**
 * Where clients arrive. `hvsock://<path>:<port>` is the path itself, served as a VMM does: whoever says `CONNECT <port>` is through to
 * the guest, whoever asks for another port is closed. On `unix:` every connection is the guest's.
 *
 * @param accept - Takes a stream over.
 * @param refused - Hears of each client that was closed before.
 * @returns How to end it: closes the connections and removes the socket file.
 */
export async function openEndpoint(
  address: Address,
  accept: (stream: Duplex, remote: string) => void,
  refused: (why: string) => void,
): Promise<() => Promise<void>> {
  try {
    if (address.transport === 'hvsock') {
      const server = await listenHybrid({
        path: address.path,
        route: (port, { hostPort }) => {
          if (port !== address.port) return undefined
          const [guest, vmm] = joinedPair()
          accept(guest, `host port ${hostPort}`)
          return vmm
        },
      })
      server.on('refused', ({ port, reason }) => refused(port === undefined ? reason : `port ${port}: ${reason}`))
      return () => server.close()
    }
    const server = await listen(address)
    server.on('connection', (socket) => accept(socket, formatAddress(socket.remote ?? address)))
    return async () => {
      server.closeAllConnections()
      await server.close()
    }
  } catch (error) {
    if (isVsockError(error) || error instanceof AddressError) throw new UsageError(`--listen: ${error.message}`)
    throw error
  }
}

/** Two ends of one stream in memory, neither of which outlives the other. */
function joinedPair(): [Duplex, Duplex] {
  const [a, b] = duplexPair()
  a.once('close', () => b.destroy())
  b.once('close', () => a.destroy())
  return [a, b]
}
