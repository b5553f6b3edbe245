import { brandOf, type ErrorFields, errnoOf, FieldError } from '@upcall/foundation/error'
import { isLongPathError, type LongPathError } from '@upcall/foundation/long-path'
import { statOf } from '@upcall/foundation/stat'
import { type Address, formatAddress, type SeqpacketAddress } from './address.js'
import type { GuestBoot } from './notify/boot.js'

/**
 * What was being done: `shutdown` is `socket.end()` on a transport without half-close, `pass` is `passDescriptor()`, `notify` is
 * `notifySystemd()`, `forward` a connection of a forwarder that was given up, `ready` the wait for a guest's READY=1; `send`, `receive` and
 * `close` are of message sockets, `bind` and `send` of datagram sockets.
 */
export type VsockOperation =
  | 'connect'
  | 'listen'
  | 'pass'
  | 'shutdown'
  | 'localCid'
  | 'notify'
  | 'relay'
  | 'forward'
  | 'ready'
  | 'bind'
  | 'send'
  | 'receive'
  | 'close'

/**
 * Codes that mean the same on every transport:
 *
 * - `ECONNREFUSED`: there is no listener, or its backlog is full
 * - `ETIMEDOUT`: a deadline has passed
 * - `EPROTO`: the other end does not speak the hybrid vsock handshake
 * - `ENOTSOCK`: the path to connect to is not that of a socket
 * - `ENAMETOOLONG`: the path is too long for the file system, or for a socket where there is neither Linux nor /proc
 * - `EADDRINUSE`: a live socket, or a file that is not a socket, has the path
 * - `ERR_SERVER_ALREADY_LISTEN`: the server given to `bindServer` has an address already
 * - `ENOTSUP`: this transport is not available here
 * - `ABORTED`: the caller's signal has aborted; its reason is the `cause`
 * - `GUEST_FAILED`, `GUEST_STOPPED`: the guest says that its boot has failed; it says that it goes down
 *
 * Every other code is the kernel's own errno, `EACCES` for instance.
 */
export type VsockErrorCode =
  | 'ECONNREFUSED'
  | 'ETIMEDOUT'
  | 'EPROTO'
  | 'ENOTSOCK'
  | 'ENAMETOOLONG'
  | 'EADDRINUSE'
  | 'ERR_SERVER_ALREADY_LISTEN'
  | 'ENOTSUP'
  | 'ABORTED'
  | 'GUEST_FAILED'
  | 'GUEST_STOPPED'
  | (string & {})

export interface VsockErrorInit extends Omit<ErrorFields<VsockErrorCode>, 'op' | 'subject'> {
  readonly op: VsockOperation
  /** Default: the remote address, else the local one. */
  readonly subject?: string | undefined
  readonly next: string
  readonly local?: Address | undefined
  readonly remote?: Address | undefined
  readonly attempts?: number | undefined
  readonly elapsedMs?: number | undefined
  readonly heard?: GuestBoot | undefined
}

const brand = brandOf('vsock.VsockError')

/** An error of a socket or a server. Messages read `<op> <address>: <what>. <Next step.>` */
export class VsockError extends FieldError<VsockErrorCode> {
  override readonly name = 'VsockError'
  declare readonly op: VsockOperation
  declare readonly next: string
  readonly local: Address | undefined
  readonly remote: Address | undefined
  /** How many attempts a `connect` with `retry` made before it gave up; the `cause` is the error of the last one. */
  readonly attempts: number | undefined
  /** How long a `connect` with `retry` tried before it gave up, in milliseconds. */
  readonly elapsedMs: number | undefined
  /** What the guest had told of its boot, of an error with op `ready`. */
  readonly heard: GuestBoot | undefined

  constructor(init: VsockErrorInit) {
    const address = init.remote ?? init.local
    super({ ...init, subject: init.subject ?? (address === undefined ? '' : formatAddress(address)) })
    this.local = init.local
    this.remote = init.remote
    this.attempts = init.attempts
    this.elapsedMs = init.elapsedMs
    this.heard = init.heard
    brand.mark(this)
  }
}

/** `instanceof` that also holds between the ESM and the CommonJS copy of this package. */
export function isVsockError(value: unknown): value is VsockError {
  return brand.has(value)
}

/** What an error says whose caller's signal has aborted. */
export function abortedFor(reason: unknown) {
  const next = "The cause is the signal's reason."
  return { code: 'ABORTED', what: "the caller's signal aborted it", next, cause: reason } as const
}

/** The caller's signal has aborted. */
export function abortedError(
  op: 'connect' | 'listen' | 'pass' | 'bind',
  address: Address | undefined,
  reason: unknown,
): VsockError {
  const ends = op === 'listen' || op === 'bind' ? { local: address } : { remote: address }
  return new VsockError({ ...abortedFor(reason), op, ...ends })
}

/** What `connect(2)` and a broken handshake mean for the dialer. */
export function connectError(remote: Address, cause: unknown): VsockError {
  const errno = errnoOf(cause)
  const init = { op: 'connect', remote, cause } as const
  if (isLongPathError(cause)) return longPathError('connect', remote, cause)
  switch (errno) {
    case 'ENOENT':
      return new VsockError({
        ...init,
        code: 'ECONNREFUSED',
        retryable: true,
        what: 'there is no listener, the file does not exist (ENOENT)',
        next: 'Check the path, start the process that makes the socket, or pass retry.',
      })
    case 'ECONNREFUSED':
      return refusedByKernel(remote, cause)
    // A full backlog: AF_VSOCK answers with a reset in this case.
    case 'EAGAIN':
      return new VsockError({
        ...init,
        code: 'ECONNREFUSED',
        retryable: true,
        what: 'the backlog of the listener is full (EAGAIN)',
        next: "Raise the server's backlog, or pass retry.",
      })
    case 'ECONNRESET':
    case 'EPIPE':
      return refusedByVmm(remote, cause)
    case 'EPROTOTYPE':
      return new VsockError({ ...init, code: errno, ...wrongType(remote) })
    case 'ENAMETOOLONG':
      return new VsockError({
        ...init,
        code: errno,
        what: 'the path, or a name in it, is longer than the file system takes (ENAMETOOLONG)',
        next: 'Use a shorter path.',
      })
    case 'EACCES':
    case 'EPERM':
      return new VsockError({
        ...init,
        code: errno,
        what: `access is denied (${errno})`,
        next: 'A Unix socket needs write permission on the file and search permission on its directories.',
      })
    default:
      return new VsockError({ ...init, code: errno, what: `connecting failed (${errno})`, next: 'See the cause.' })
  }
}

/** The socket at the path is of another type than the connecting socket. */
function wrongType(remote: Address): { what: string; next: string } {
  const messages = (remote as Partial<SeqpacketAddress>).type === 'seqpacket'
  return {
    what: `the socket at the path is not for ${messages ? 'messages' : 'a stream'} (EPROTOTYPE)`,
    next: messages
      ? 'Is it a stream? Then connect() takes its address without "+seq".'
      : 'Is it for messages (SOCK_SEQPACKET)? Then connectSeqpacket() takes unix+seq:<path>.',
  }
}

/** A path that has no short form on this system. */
export function longPathError(op: 'connect' | 'listen', address: Address, cause: LongPathError): VsockError {
  const ends = op === 'listen' ? { local: address } : { remote: address }
  return new VsockError({ code: cause.code, op, ...ends, what: cause.what, next: cause.next ?? 'Use a shorter path.', cause })
}

function refusedByKernel(remote: Address, cause: unknown): VsockError {
  const kind = remote.transport === 'vsock' ? undefined : kindOfOther(remote.path)
  if (kind !== undefined)
    return new VsockError({
      op: 'connect',
      remote,
      cause,
      code: 'ENOTSOCK',
      what: `the path is ${kind}, not a socket`,
      next: 'Check the path: it must be the socket of a VMM or a server.',
    })
  return new VsockError({
    op: 'connect',
    remote,
    cause,
    code: 'ECONNREFUSED',
    retryable: true,
    what: 'there is no listener: the process that made the socket file is gone',
    next: 'Start it again, or pass retry.',
  })
}

/** What is at a path where connect(2) found no listener, unless it is a socket. */
function kindOfOther(path: string): string | undefined {
  try {
    const found = statOf(path)
    if (found === undefined || found.isSocket()) return undefined
    return found.isDirectory() ? 'a directory' : found.isFile() ? 'a plain file' : 'something else'
  } catch {
    // The file may be gone by now.
    return undefined
  }
}

/** The VMM closed instead of answering CONNECT. A VMM sends no text on failure. */
export function refusedByVmm(remote: Address, cause?: unknown): VsockError {
  const port = remote.transport === 'unix' ? '' : ` on port ${remote.port} in the guest`
  return new VsockError({
    code: 'ECONNREFUSED',
    op: 'connect',
    remote,
    cause,
    retryable: true,
    what: `there is no listener${port}: the connection was closed before it was accepted`,
    next: 'Start the server in the guest, or pass retry.',
  })
}
