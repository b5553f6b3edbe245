import { connect, formatAddress, listen, parseAddress } from '@upcall/vsock'
import type { ComplianceTransport } from './transport.js'

/**
 * `vsock:` addresses of @upcall/vsock over AF_VSOCK's own loopback (CID 1; module vsock_loopback). Needs the native addon. Meant for
 * a guest that exists for the test: it connects on whatever machine it runs.
 */
export function vsockTransport(): ComplianceTransport<string> {
  return {
    name: 'vsock',
    features: { halfClose: true, netSocket: true, descriptors: true },
    async listen({ address = 'vsock://local:any', signal }) {
      const server = await listen(address, { signal })
      const bound = formatAddress(server.address)
      return { address: bound, close: () => server.close(), [Symbol.asyncIterator]: () => server[Symbol.asyncIterator]() }
    },
    connect: (address, options) => connect(address, options),
    async vacant() {
      // The kernel counts its free ports up, so the next one that listens gets another.
      const server = await listen('vsock://local:any')
      await server.close()
      return { address: formatAddress(server.address), close: async () => {} }
    },
    expectedRemote: parseAddress,
    expectedLocal: parseAddress,
  }
}
