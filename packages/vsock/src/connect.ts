import { onAbort } from '@upcall/foundation/abort'
import { checkObject, checkSignal } from '@upcall/foundation/check'
import { type Address, toAddress } from './address.js'
import { createSocket } from './create-socket.js'
import { abortedError } from './errors.js'
import { type InheritedSocket, isInherited } from './inherited.js'
import type { ConnectOptions } from './plan.js'
import type { VsockSocket } from './socket.js'

/**
 * Connects to an address and resolves with a socket after any handshake: `createSocket`, and waiting for its `'connect'`.
 *
 * @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an option that is wrong, or for the CID
 *   or the port `any`.
 * @throws {VsockError} `retryable` for a missing or unattended socket (ENOENT, ECONNREFUSED), EOF or ECONNRESET in place of the
 * VMM's reply (all code `ECONNREFUSED`) and a deadline that has passed (`ETIMEDOUT`); not for EACCES or a malformed reply (`EPROTO`).
 * With `retry`, the error of a connect that gave up says `attempts` and `elapsedMs`, and its `cause` is the error of the last attempt.
 */
export async function connect(address: Address | string | InheritedSocket, options: ConnectOptions = {}): Promise<VsockSocket> {
  checkObject('options', options)
  const { signal } = options
  checkSignal(signal)
  if (isInherited(address)) {
    if (signal?.aborted) throw abortedError('connect', undefined, signal.reason)
    return createSocket(address, { ...options, signal: undefined })
  }
  const remote = toAddress(address)
  // Afterwards, the signal does nothing to the socket.
  const socket = createSocket(remote, { ...options, signal: undefined })
  const give = (reason: unknown) => void socket.destroy(abortedError('connect', remote, reason))
  const unlisten = onAbort(signal, give)
  if (signal?.aborted) give(signal.reason)
  return new Promise((resolve, reject) => {
    const settle = () => {
      unlisten()
      socket.off('connect', onConnect).off('error', onError)
    }
    const onConnect = () => {
      settle()
      resolve(socket)
    }
    const onError = (error: Error) => {
      settle()
      reject(error)
    }
    socket.on('connect', onConnect).on('error', onError)
  })
}
