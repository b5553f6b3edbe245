import type { SocketConstructorOpts } from 'node:net'
import { onAbort } from '@upcall/foundation/abort'
import { finiteDuration, integer, wrongValue } from '@upcall/foundation/check'
import { type Address, toAddress } from './address.js'
import { dialUntil } from './attempts.js'
import { abortedError } from './errors.js'
import { type InheritedSocket, isInherited } from './inherited.js'
import { inheritedSocket } from './inherited-socket.js'
import { Life } from './life.js'
import { type ConnectOptions, checkDestination, planOf } from './plan.js'
import { VsockSocket } from './socket.js'

export interface CreateSocketOptions extends ConnectOptions {
  /**
   * Destroys the socket, while it connects or later, as the `signal` of `net.connect` does. The error has the code `ABORTED`, and its
   * `cause` is the signal's reason.
   */
  signal?: AbortSignal | undefined
  /** As `net.connect` has it: `socket.setTimeout(timeout)`, 0 for none. Not the time that connecting may take, which is `timeoutMs`. */
  timeout?: number | undefined
  /** As `net.connect` has it: how many bytes the socket buffers in each direction. */
  highWaterMark?: number | undefined
}

/**
 * Makes a socket that connects to an address, as `net.connect` does: it is there at once, with `connecting: true`, and can be written to,
 * read, ended and destroyed. `'connect'` and `'ready'` come after any handshake. If connecting fails, `'error'` comes with the
 * `VsockError` that `connect` would reject with, and then `'close'`.
 *
 * Until it is connected, the socket has no handle (`_handle`). The option `onread` of `net.connect` is refused: it reads below the
 * handshake. Options that only TCP needs (`noDelay`, `keepAlive`, `family`, …) do nothing.
 *
 * `{ fd }` is a connected Unix or AF_VSOCK socket that another program has made. The socket owns the descriptor, and is connected from the
 * start: there is no `'connect'`. `halfClose` is true by default, since nothing tells what is behind a Unix socket. AF_VSOCK needs the
 * addon.
 *
 * @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an option that is wrong, or for the CID
 *   or the port `any`.
 * @throws {VsockError} for a descriptor: `EBADF`, `ENOTSOCK`, `ESOCKTNOSUPPORT`, `EAFNOSUPPORT`, `ENOTCONN`, `EINVAL` (it listens),
 *   `EEXIST` (this process uses it already) or `ENOTSUP`. The descriptor is still the caller's.
 */
export function createSocket(address: Address | string | InheritedSocket, options: CreateSocketOptions = {}): VsockSocket {
  const plan = planOf(options)
  const { timeout } = options
  if (timeout !== 0) finiteDuration('timeout', timeout, 0)
  const buffers = buffersOf(options)
  if (isInherited(address)) {
    const socket = inheritedSocket(address, options, buffers)
    if (timeout) socket.setTimeout(timeout)
    return endWith(options.signal, socket)
  }
  const remote = toAddress(address)
  checkDestination(remote)
  const { signal, lingerMs, clock, allowHalfOpen = false, onRetry, vsock } = options
  const halfClose = options.halfClose ?? remote.transport !== 'hvsock'
  const socket = new VsockSocket({ remote, halfClose, lingerMs, clock }, { allowHalfOpen, ...buffers })
  if (timeout) socket.setTimeout(timeout)

  const stop = new AbortController()
  const life = new Life(clock)
  socket.beginDialling({
    set: (referenced) => life.set(referenced),
    abandon: (error) => stop.abort(error ?? abortedError('connect', remote, undefined)),
  })
  endWith(signal, socket)
  if (signal?.aborted) return socket
  dialUntil(remote, plan, { signal: stop.signal, life, onRetry, vsock })
    .then((dialled) => {
      try {
        if (!socket.destroyed) return socket.finishDialling(dialled)
      } finally {
        // Without its handle, this closes nothing.
        dialled.carrier.on('error', () => {}).destroy()
      }
    })
    .catch((error: Error) => void socket.destroy(error))
  return socket
}

/** Destroys the socket when the signal aborts. */
function endWith(signal: AbortSignal | undefined, socket: VsockSocket): VsockSocket {
  const end = (reason: unknown) => void socket.destroy(abortedError('connect', socket.remote, reason))
  socket.once('close', onAbort(signal, end))
  // Later, as net does it: the caller has yet to listen for the error.
  if (signal?.aborted) process.nextTick(() => end(signal.reason))
  return socket
}

/** @throws {RangeError} for a number that is wrong, and for `onread`. */
function buffersOf(options: CreateSocketOptions & { onread?: unknown }): SocketConstructorOpts {
  const { highWaterMark, onread } = options
  if (onread !== undefined && onread !== null) wrongValue('onread', "left out: read by 'data' or 'readable'", onread)
  if (highWaterMark === undefined) return {}
  return { highWaterMark: integer('highWaterMark', highWaterMark) } as SocketConstructorOpts
}
