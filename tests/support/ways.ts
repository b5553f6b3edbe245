import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CreateSocketOptions, connect, createSocket, listenHybrid, VsockAgent } from '@upcall/vsock'

// The ways to reach a server that listens on a Unix socket: by `net` alone, which is the control, and by each kind of address.

export const GUEST_PORT = 80

/** A way to one server. */
export interface Way extends AsyncDisposable {
  /** Where the server has to listen. */
  readonly path: string
  /** Undefined for the control. */
  readonly address: string | undefined
  /** What the address is to be dialled with. */
  readonly halfClose: boolean | undefined
  /** A socket at once, as of `net.connect`. */
  connect(options?: CreateSocketOptions): net.Socket
  agent(options?: http.AgentOptions): http.Agent
}

export interface WayKind {
  readonly name: string
  open(): Promise<Way>
}

/** A directory of its own, which `close` removes. */
function scratch(): { path: string; close: () => void } {
  const directory = mkdtempSync(join(tmpdir(), 'upcall-way-'))
  return { path: join(directory, 'guest'), close: () => rmSync(directory, { recursive: true, force: true }) }
}

/** Node's own agent with Node's own sockets. */
export class NetAgent extends http.Agent {
  readonly #path: string

  constructor(path: string, options?: http.AgentOptions) {
    super(options)
    this.#path = path
  }

  override createConnection(options: http.ClientRequestArgs): net.Socket {
    return net.connect({ ...(options as net.NetConnectOpts), path: this.#path })
  }
}

export const control: WayKind = {
  name: 'net',
  async open() {
    const { path, close } = scratch()
    return {
      path,
      address: undefined,
      halfClose: undefined,
      connect: ({ allowHalfOpen = false } = {}) => net.connect({ path, allowHalfOpen }),
      agent: (options) => new NetAgent(path, options),
      [Symbol.asyncDispose]: async () => close(),
    }
  },
}

function ours(path: string, address: string, ways: CreateSocketOptions, close: () => unknown): Way {
  return {
    path,
    address,
    halfClose: ways.halfClose,
    connect: (options) => createSocket(address, { ...ways, ...options }),
    agent: (options) => new VsockAgent(address, { ...options, connect: ways }),
    [Symbol.asyncDispose]: async () => void (await close()),
  }
}

const unix: WayKind = {
  name: 'unix:',
  async open() {
    const { path, close } = scratch()
    return ours(path, `unix:${path}`, {}, close)
  },
}

function hybrid(halfClose: boolean): WayKind {
  return {
    name: `hvsock:// ${halfClose ? 'with' : 'without'} half-close`,
    async open() {
      const { path, close } = scratch()
      const vmm = await listenHybrid({
        path: `${path}.vm`,
        halfClose,
        route: (port) => (port === GUEST_PORT ? connect(`unix:${path}`, { allowHalfOpen: true }) : undefined),
      })
      return ours(path, `hvsock://${vmm.path}:${GUEST_PORT}`, { halfClose }, async () => {
        await vmm.close()
        close()
      })
    },
  }
}

/** By our addresses. */
export const ourWays: readonly WayKind[] = [unix, hybrid(false), hybrid(true)]
/** The control first. */
export const allWays: readonly WayKind[] = [control, ...ourWays]
