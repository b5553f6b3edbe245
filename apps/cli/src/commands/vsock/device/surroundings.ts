import type { Duplex } from 'node:stream'
import type { VhostUserVsock, VsockNetwork } from '@upcall/vhost-user'
import { type Address, Cid, connect, forward } from '@upcall/vsock'

/** What the devices use of the machine that they run on. Tests have another one, in which nothing is connected over AF_VSOCK. */
export interface Surroundings {
  network(): Promise<Pick<VsockNetwork, 'add' | 'close' | 'on'>>
  /** A stream to a program of this machine. */
  dial(address: Address, signal: AbortSignal): Promise<Duplex>
  /** Carries what is connected to an AF_VSOCK port of this machine to the same port of the guest. */
  forward(port: number, device: Pick<VhostUserVsock, 'connect'>): Promise<{ close(): Promise<void> }>
}

export const thisMachine: Surroundings = {
  async network() {
    // Only this command needs its addon.
    const { VsockNetwork } = await import('@upcall/vhost-user')
    return new VsockNetwork()
  },
  // The device has the time limit.
  dial: (address, signal) => connect(address, { signal, allowHalfOpen: true, timeoutMs: Number.POSITIVE_INFINITY }),
  forward: (port, device) =>
    forward({ transport: 'vsock', cid: Cid.any, port }, ({ signal }) => device.connect(port, { signal })),
}
