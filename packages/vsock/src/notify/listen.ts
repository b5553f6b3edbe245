import type { Duplex } from 'node:stream'
import { wrongValue } from '@upcall/foundation/check'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import type { Address, SeqpacketAddress } from '../address.js'
import type { BindOptions } from '../bind.js'
import type { InheritedSocket } from '../inherited.js'
import { listen } from '../listen.js'
import { listenSeqpacket } from '../seqpacket/listen.js'
import type { GuestBoot } from './boot.js'
import { checkReadyOptions, type ReadyOptions } from './boots.js'
import { checkNotifyOptions, NotifyReceiver, type NotifyReceiverOptions } from './receiver.js'

/** How long a message may pause where the end of the guest's side may not come through. */
const QUIET_MS = 200

/** Where guests send to: streams, or with `+seq` messages (`vsock-seqpacket:` in the guest), or a socket that another program has bound. */
export type NotifyAddress = Address | SeqpacketAddress | string | InheritedSocket

export interface ListenNotifyOptions extends NotifyReceiverOptions, Pick<BindOptions, 'mode' | 'backlog'> {
  /** Closes the receiver; before it listens, `listenNotify` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
}

export interface WaitForNotifyOptions extends NotifyReceiverOptions, Pick<BindOptions, 'mode' | 'backlog'>, ReadyOptions {}

/**
 * Listens for what guests send to their `vmm.notify_socket`: on `hvsock://<path>:<port>` for the guest of that VMM, on `vsock://any:<port>`
 * for those of this host; with `+seq` after the scheme for SOCK_SEQPACKET. `notifyCredential` says what to tell the guest.
 *
 * @throws {AddressError} and {VsockError} as `listen` does; {TypeError} or {RangeError} for an option that is wrong.
 */
export async function listenNotify(address: NotifyAddress, options: ListenNotifyOptions = {}): Promise<NotifyReceiver> {
  checkNotifyOptions(options)
  const { mode, backlog, signal, clock } = options
  const ways = { mode, backlog, signal, clock }
  const server = isSeqpacket(address)
    ? await listenSeqpacket(address, ways)
    : await listen(address, { ...ways, halfClose: true, allowHalfOpen: true })
  const isNative = server.address.transport === 'vsock'
  if (options.privileged && !isNative) {
    await server.close()
    wrongValue('privileged', 'left out: only AF_VSOCK tells the port of the sender', options.privileged)
  }
  const receiver = new NotifyReceiver({ ...options, quietMs: options.quietMs ?? (isNative ? undefined : QUIET_MS) })
  receiver.fedBy(server.address, () => server.close())
  server.on('connection', (socket: (Duplex | MessageSocket) & { readonly remote: Address | undefined }) => {
    const { remote } = socket
    receiver.receive(socket, remote?.transport === 'vsock' ? { cid: remote.cid, port: remote.port } : {})
  })
  server.once('close', () => void receiver.close())
  return receiver
}

function isSeqpacket(address: NotifyAddress): address is SeqpacketAddress | string {
  if (typeof address === 'string') return /^\w+\+seq:/.test(address)
  return (address as Partial<SeqpacketAddress> | undefined)?.type === 'seqpacket'
}

/**
 * Listens until a guest has said READY=1, and resolves with all that it told: `listenNotify`, `ready`, `close`.
 *
 * @throws {AddressError} and {VsockError} as `listenNotify` and `ready` do.
 */
export async function waitForNotify(address: NotifyAddress, options: WaitForNotifyOptions = {}): Promise<GuestBoot> {
  checkReadyOptions(options)
  const { unit, timeoutMs, signal, ...rest } = options
  const receiver = await listenNotify(address, { ...rest, signal })
  try {
    return await receiver.ready({ unit, timeoutMs, signal })
  } finally {
    await receiver.close()
  }
}
