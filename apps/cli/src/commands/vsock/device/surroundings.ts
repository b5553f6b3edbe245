import type { Duplex } from 'node:stream'
import type { IncomingConnection, VhostUserVsock, VsockNetwork } from '@upcall/vhost-user'
import { type Address, Cid, connect, connectSeqpacket, forward, type SeqpacketSocket } from '@upcall/vsock'

/** What the devices use of the machine that they run on. Tests have another one, in which nothing is connected over AF_VSOCK. */
export interface Surroundings {
  network(): Promise<Pick<VsockNetwork, 'add' | 'close' | 'on' | 'link'>>
  /** A socket to a program of this machine, of the type that the guest's socket has, within the time that the guest's handshake has. */
  dial(address: Address, guest: Guest): Promise<Duplex | SeqpacketSocket>
  /** Carries what is connected to an AF_VSOCK port of this machine to the same port of the guest. */
  forward(port: number, device: Pick<VhostUserVsock, 'connect'>): Promise<{ close(): Promise<void> }>
}

export interface Guest extends Pick<IncomingConnection, 'type' | 'signal'> {
  readonly timeoutMs: number
}

export const thisMachine: Surroundings = {
  async network() {
    // Only this command needs its addon.
    const { VsockNetwork } = await import('@upcall/vhost-user')
    return new VsockNetwork()
  },
  dial(address, { type, signal, timeoutMs }) {
    // The device has a time limit, too. But the kernel keeps an AF_VSOCK socket until the time for its connect is over, closed or not.
    const options = { signal, timeoutMs }
    if (type === 'seqpacket') return connectSeqpacket({ ...address, type }, options)
    return connect(address, { ...options, allowHalfOpen: true })
  },
  forward: (port, device) =>
    forward({ transport: 'vsock', cid: Cid.any, port }, ({ signal }) => device.connect(port, { signal })),
}
