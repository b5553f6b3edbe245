import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DeviceManager, type DeviceManagerOptions } from '@upcall/device-manager'
import { deviceManagerGuest, type SimulatedGuest } from '@upcall/device-manager/guest'
import { UpcallServer } from '@upcall/server'
import { duplexPair } from '@upcall/testkit'
import { connect, type HybridServer, listenHybrid } from '@upcall/vsock'
import { type Arch, UPCALL_PORT } from '@upcall/wire'

/** A VMM in this process: a simulated guest with its upcall server, behind hybrid vsock on a real Unix socket. */
export class HybridVmm implements AsyncDisposable {
  readonly #guest: SimulatedGuest
  readonly #path: string
  #server: UpcallServer | undefined
  #listener: HybridServer | undefined

  constructor(guest: SimulatedGuest, path: string) {
    this.#guest = guest
    this.#path = path
  }

  /** What the guest has open now. */
  get connections() {
    return this.#server?.connections ?? new Set()
  }

  async start(): Promise<void> {
    const server = new UpcallServer({ services: [deviceManagerGuest(this.#guest)] })
    this.#server = server
    this.#listener = await listenHybrid({
      path: this.#path,
      route: async (port, { hostPort }) => {
        if (port !== UPCALL_PORT) return undefined
        const [host, guest] = duplexPair()
        server.accept(guest, { remote: `host(2):${hostPort}` })
        return host
      },
    })
  }

  /** As if the process had been killed, but for the socket file. */
  async stop(): Promise<void> {
    await this.#listener?.close()
    await this.#server?.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

/** A client as a VMM would make it. */
export function managerOver<A extends Arch>(
  path: string,
  arch: A,
  more: Partial<DeviceManagerOptions<A>> = {},
): DeviceManager<A> {
  const address = `hvsock://${path}:${UPCALL_PORT}`
  return new DeviceManager({ dial: ({ signal }) => connect(address, { signal }), arch, remote: address, ...more })
}

/** A path for a socket in a directory of its own, which is removed again. */
export async function withSocketPath(use: (path: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'upcall-'))
  try {
    await use(join(directory, 'vsock.sock'))
  } finally {
    await rm(directory, { recursive: true })
  }
}
