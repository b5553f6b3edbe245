import { mkdtempSync, rmSync } from 'node:fs'
import type { Agent } from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  bindServer,
  type CreateSocketOptions,
  createSocket,
  type HybridProfile,
  type ListenOptions,
  listen,
  listenHybrid,
  VsockAgent,
  type VsockServer,
} from '@upcall/vsock'
import type { Place, Transport } from './stage.mjs'

// Each of them gives a scene the line that connects and the line that listens.

const GUEST_PORT = 80

/** A folder of its own, which `close` removes. */
function scratch() {
  const folder = mkdtempSync(join(tmpdir(), 'parity-'))
  return { path: (name: string) => join(folder, name), remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** What scenes are compared with. */
export const control: Transport = {
  name: 'net over a Unix socket',
  traits: ['server'],
  async open() {
    const { path, remove } = scratch()
    return {
      connect: (options) => net.connect({ ...options, path: path('socket') }),
      listen: (server) => new Promise<void>((resolve) => server.listen(path('socket'), resolve)),
      close: async () => remove(),
    }
  },
}

/** As programs use `listen`: it hands its connections to a server of any kind. */
export async function listenFor(server: net.Server, address: string, options: ListenOptions = {}): Promise<VsockServer> {
  const listener = await listen(address, { allowHalfOpen: (server as { allowHalfOpen?: boolean }).allowHalfOpen, ...options })
  return listener.on('connection', (socket) => server.emit('connection', socket))
}

interface Parts {
  readonly name: string
  readonly traits: readonly string[]
  /** What the client dials, and where the server listens. */
  readonly at: (path: (name: string) => string) => { dial: string; path: string; address: string }
  readonly connects?: CreateSocketOptions | 'net'
  readonly listens?: 'bindServer' | 'listen' | 'net'
  readonly agent?: boolean
  /** What has to run between the two. */
  readonly between?: (path: (name: string) => string) => Promise<{ close(): Promise<unknown> }>
}

function ours({ name, traits, at, connects = {}, listens = 'bindServer', agent, between }: Parts): Transport {
  return {
    name,
    traits: [...traits, listens, ...(listens === 'listen' ? [] : ['server']), ...(connects === 'net' ? ['net dials'] : [])],
    async open(lingerMs): Promise<Place> {
      const { path, remove } = scratch()
      const { dial, path: plain, address } = at(path)
      const middle = await between?.(path)
      let listener: VsockServer | undefined
      return {
        connect: (options) =>
          connects === 'net'
            ? net.connect({ ...options, path: dial.slice('unix:'.length) })
            : createSocket(dial, { lingerMs, ...connects, ...options }),
        async listen(server) {
          if (listens === 'bindServer') await bindServer(server, address, { lingerMs })
          else if (listens === 'listen') listener = await listenFor(server, address, { lingerMs })
          else await new Promise<void>((resolve) => server.listen(plain, resolve))
        },
        agent: agent
          ? (options) =>
              new VsockAgent(dial, { ...options, connect: { lingerMs, ...(connects as CreateSocketOptions) } }) as Agent
          : undefined,
        async close() {
          listener?.closeAllConnections()
          await listener?.close()
          await middle?.close()
          remove()
        },
      }
    },
  }
}

const plain = (path: (name: string) => string) => ({
  dial: `unix:${path('socket')}`,
  path: path('socket'),
  address: `unix:${path('socket')}`,
})

/** Over a VMM of ours, to a guest's server on a Unix socket. */
function hybrid(profile: HybridProfile | undefined, halfClose: boolean): Transport {
  return ours({
    name: `hvsock:// to ${profile ?? 'listenHybrid'}, halfClose ${halfClose}`,
    traits: ['hybrid', ...(halfClose ? [] : ['no half-close'])],
    at: (path) => ({ dial: `hvsock://${path('vm')}:${GUEST_PORT}`, path: path('guest'), address: `unix:${path('guest')}` }),
    connects: { halfClose },
    listens: 'net',
    agent: true,
    between: (path) =>
      listenHybrid({
        path: path('vm'),
        profile,
        route: (port) =>
          port === GUEST_PORT
            ? new Promise((resolve, reject) => {
                const guest = net
                  .connect({ path: path('guest'), allowHalfOpen: true }, () => resolve(guest))
                  .once('error', reject)
              })
            : undefined,
      }),
  })
}

/** The guest connects to the host through its VMM. */
function guestInitiated(halfClose: boolean): Transport {
  return ours({
    name: `hvsock:// from a guest, halfClose ${halfClose}`,
    traits: ['guest-initiated', ...(halfClose ? [] : ['no half-close'])],
    at: (path) => ({
      dial: `unix:${path(`vm_${GUEST_PORT}`)}`,
      path: path(`vm_${GUEST_PORT}`),
      address: `hvsock://${path('vm')}:${GUEST_PORT}`,
    }),
    connects: 'net',
  })
}

export const transports: readonly Transport[] = [
  ours({ name: 'unix: createSocket to bindServer', traits: ['unix'], at: plain, agent: true }),
  ours({ name: 'unix: createSocket to listen', traits: ['unix'], at: plain, listens: 'listen' }),
  ours({ name: 'unix: createSocket to net', traits: ['unix'], at: plain, listens: 'net' }),
  ours({ name: 'unix: net to bindServer', traits: ['unix'], at: plain, connects: 'net' }),
  hybrid(undefined, true),
  hybrid('cloud-hypervisor', true),
  hybrid('firecracker', false),
  hybrid('dragonball', false),
  guestInitiated(false),
]
