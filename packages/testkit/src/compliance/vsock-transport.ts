import { connect, formatAddress, listen, parseAddress } from '@upcall/vsock'
import type { ComplianceTransport } from './transport.js'

/**
 * `vsock:` addresses of @upcall/vsock over AF_VSOCK's own loopback (CID 1; module vsock_loopback). Needs the native addon. It opens
 * AF_VSOCK connections on the machine where it runs: use it in a guest that exists for the test.
 */
export function vsockTransport(): ComplianceTransport<string> {
  return {
    name: 'vsock',
    features: { halfClose: true, netSocket: true, descriptors: true },
    async listen({ address = 'vsock://local:any', signal }) {
      const server = await listen(address, { signal, allowHalfOpen: true })
      const bound = formatAddress(server.address)
      return { address: bound, close: () => server.close(), [Symbol.asyncIterator]: () => server[Symbol.asyncIterator]() }
    },
    connect: (address, options) => connect(address, { ...options, allowHalfOpen: true }),
    async vacant() {
      // The kernel counts its free ports up, so the next listener gets another one.
      const server = await listen('vsock://local:any')
      await server.close()
      return { address: formatAddress(server.address), close: async () => {} }
    },
    expectedRemote: parseAddress,
    expectedLocal: parseAddress,
  }
}
