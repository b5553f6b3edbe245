import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, listen, listenHybrid, parseAddress } from '@upcall/vsock'
import { duplexPair } from '../duplex-pair.js'
import { StreamQueue } from './stream-queue.js'
import type { ComplianceTransport } from './transport.js'

const PORT = 1024

/** `unix:` addresses of @upcall/vsock, on sockets in a temporary directory. */
export async function unixTransport(): Promise<ComplianceTransport<string>> {
  const fresh = await freshPaths()
  return {
    name: 'unix',
    features: { halfClose: true, netSocket: true, descriptors: true },
    async listen({ address = `unix:${fresh.path()}`, signal }) {
      const server = await listen(address, { signal, allowHalfOpen: true })
      return { address, close: () => server.close(), [Symbol.asyncIterator]: () => server[Symbol.asyncIterator]() }
    },
    connect: (address, options) => connect(address, { ...options, allowHalfOpen: true }),
    vacant: async () => ({ address: `unix:${fresh.path()}`, close: async () => {} }),
    expectedRemote: parseAddress,
    expectedLocal: parseAddress,
    dispose: fresh.dispose,
  }
}

/**
 * Hybrid vsock from the host to the guest: `connect('hvsock://…')` against `listenHybrid`.
 *
 * @param options - `halfClose`: whether both ends take the VMM for one with half-close. Default true, as Cloud Hypervisor; false as
 *   Firecracker.
 */
export async function hybridTransport(options: { halfClose?: boolean | undefined } = {}): Promise<ComplianceTransport<string>> {
  const { halfClose = true } = options
  const fresh = await freshPaths()
  return {
    name: `hybrid, host to guest, ${halfClose ? 'with' : 'without'} half-close`,
    features: { halfClose, netSocket: true, descriptors: true },
    async listen({ address = `hvsock://${fresh.path()}:${PORT}`, signal }) {
      const { path, port } = hvsock(address)
      const queue = new StreamQueue()
      const server = await listenHybrid({
        path,
        signal,
        halfClose,
        route: async (asked) => {
          if (asked !== port) return undefined
          const [host, guest] = duplexPair()
          queue.push(guest)
          return host
        },
      })
      return {
        address,
        async close() {
          queue.close()
          await server.close()
        },
        [Symbol.asyncIterator]: () => queue[Symbol.asyncIterator](),
      }
    },
    connect: (address, more) => connect(address, { ...more, halfClose, allowHalfOpen: true }),
    // The VMM is there, the guest's port is not.
    async vacant() {
      const path = fresh.path()
      const server = await listenHybrid({ path, route: async () => undefined })
      return { address: `hvsock://${path}:${PORT}`, close: () => server.close() }
    },
    async mute() {
      const path = fresh.path()
      return { address: `hvsock://${path}:${PORT}`, ...(await muteServer(path)) }
    },
    expectedRemote: parseAddress,
    dispose: fresh.dispose,
  }
}

/** Hybrid vsock from the guest to the host: the VMM's connection to `<path>_<port>` against `listen('hvsock://…')`. */
export async function guestInitiatedTransport(): Promise<ComplianceTransport<string>> {
  const fresh = await freshPaths()
  const asVmm = (address: string) => {
    const { path, port } = hvsock(address)
    return `unix:${path}_${port}`
  }
  return {
    name: 'hybrid, guest to host',
    features: { halfClose: true, netSocket: true, descriptors: true },
    async listen({ address = `hvsock://${fresh.path()}:${PORT}`, signal }) {
      const server = await listen(address, { signal, halfClose: true, allowHalfOpen: true })
      return { address, close: () => server.close(), [Symbol.asyncIterator]: () => server[Symbol.asyncIterator]() }
    },
    connect: (address, options) => connect(asVmm(address), { ...options, allowHalfOpen: true }),
    vacant: async () => ({ address: `hvsock://${fresh.path()}:${PORT}`, close: async () => {} }),
    expectedRemote: (address) => parseAddress(asVmm(address)),
    expectedLocal: parseAddress,
    dispose: fresh.dispose,
  }
}

function hvsock(address: string): { path: string; port: number } {
  const parsed = parseAddress(address)
  if (parsed.transport !== 'hvsock') throw new TypeError(`${address}: not an hvsock:// address`)
  return parsed
}

/** A VMM that takes the connection and never answers. */
async function muteServer(path: string): Promise<{ reached: Promise<void>; close(): Promise<void> }> {
  const sockets = new Set<Socket>()
  let reach!: () => void
  const reached = new Promise<void>((resolve) => {
    reach = resolve
  })
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', reach)
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve))
  return {
    reached,
    close() {
      for (const socket of sockets) socket.destroy()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}

async function freshPaths(): Promise<{ path(): string; dispose(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'upcall-'))
  let count = 0
  return {
    path: () => join(directory, `${++count}.sock`),
    dispose: () => rm(directory, { recursive: true, force: true }),
  }
}
