import { onAbort } from '@upcall/foundation/abort'
import { integer } from '@upcall/foundation/check'
import { type SeqpacketAddress, toSeqpacketAddress } from '../address.js'
import { repeat } from '../attempts.js'
import { abortedError } from '../errors.js'
import { Life } from '../life.js'
import { checkVsockOptions } from '../native/options.js'
import { type ConnectOptions, checkDestination, planOf } from '../plan.js'
import { dialSeqpacket } from './dial.js'
import type { SeqpacketSocket } from './socket.js'

/** What concerns the socket, not the connecting. */
export interface SeqpacketOptions {
  /**
   * Longer messages are cut to this many bytes, 1 or more; `sentBytes` tells how long one was. Default: none is cut. Over AF_VSOCK no message
   * is longer than this side's `vsock.bufferSize`.
   */
  maxReceiveBytes?: number | undefined
}

/** As for `connect`, but for half-close: each direction of a message socket always ends by itself. */
export interface ConnectSeqpacketOptions
  extends SeqpacketOptions,
    Pick<ConnectOptions, 'signal' | 'timeoutMs' | 'retry' | 'onRetry' | 'clock' | 'vsock'> {}

/**
 * Connects a message socket (`SOCK_SEQPACKET`) to `vsock+seq://<cid>:<port>`, `unix+seq:<path>` or `hvsock+seq://<path>:<port>`. It needs the
 * addon on each of them.
 *
 * `hvsock+seq://` is a draft that may change: the socket at `<path>_seqpacket`, as Cloud Hypervisor's issue 8894 proposes it.
 *
 * @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an option that is wrong, or for the CID
 *   or the port `any`.
 * @throws {VsockError} as `connect` does, and not `retryable`: `EPROTOTYPE` (the socket at the path is not for messages), `ESOCKTNOSUPPORT`
 *   (the vsock transport carries streams only), `ENOTSUP` (no addon). Over AF_VSOCK a listener for streams is `ECONNREFUSED`.
 */
export async function connectSeqpacket(
  address: SeqpacketAddress | string,
  options: ConnectSeqpacketOptions = {},
): Promise<SeqpacketSocket> {
  const plan = planOf(options)
  const { signal, onRetry, clock, vsock } = options
  const maxReceiveBytes = checkSeqpacketOptions(options)
  checkVsockOptions(vsock ?? {})
  const remote = toSeqpacketAddress(address)
  checkDestination(remote)
  if (signal?.aborted) throw abortedError('connect', remote, signal.reason)
  const stop = new AbortController()
  const unlisten = onAbort(signal, (reason) => stop.abort(abortedError('connect', remote, reason)))
  try {
    const socket = await repeat('connect', remote, plan, { signal: stop.signal, life: new Life(clock), onRetry }, (attempt) =>
      dialSeqpacket(remote, attempt, { vsock, maxReceiveBytes, clock }),
    )
    if (!stop.signal.aborted) return socket
    socket.destroy()
    throw stop.signal.reason
  } finally {
    unlisten()
  }
}

/** @throws {RangeError} */
export function checkSeqpacketOptions({ maxReceiveBytes }: SeqpacketOptions): number | undefined {
  return maxReceiveBytes === undefined ? undefined : integer('maxReceiveBytes', maxReceiveBytes, { min: 1 })
}
