import type { Address, VsockAddress } from './address.js'
import type { DialOptions } from './dial.js'
import { VsockError, type VsockOperation } from './errors.js'
import type { ListenOptions, VsockServer } from './listen.js'
import type { VsockSocket } from './socket.js'

// AF_VSOCK needs native code: Node refuses such a descriptor (ERR_INVALID_FD_TYPE).

/** One attempt over AF_VSOCK; rejects with `options.signal.reason` when that aborts. */
export async function connectNative(address: VsockAddress, _options: DialOptions): Promise<VsockSocket> {
  throw needsAddon('connect', { remote: address })
}

export async function listenNative(address: VsockAddress, _options: ListenOptions): Promise<VsockServer> {
  throw needsAddon('listen', { local: address })
}

function needsAddon(op: VsockOperation, address: { local: Address } | { remote: Address }): VsockError {
  return new VsockError({
    code: 'ENOTSUP',
    op,
    ...address,
    what: 'AF_VSOCK needs the native addon, which this build of @upcall/vsock does not have',
    next: 'use hvsock://<path>:<port> through the VMM’s Unix socket, or unix:<path>',
  })
}
