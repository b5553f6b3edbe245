import { statSync } from 'node:fs'
import { type Address, formatAddress } from './address.js'

/** What was being done: `shutdown` is `socket.end()` on a transport without half-close. */
export type VsockOperation = 'connect' | 'listen' | 'shutdown' | 'localCid' | 'relay'

/**
 * Codes that mean the same on every transport:
 *
 * - `ECONNREFUSED`: nobody listens there, or its backlog is full
 * - `ETIMEDOUT`: a deadline passed
 * - `EPROTO`: the other end does not speak the hybrid vsock handshake
 * - `ENOTSOCK`: the path to connect to is that of something that is not a socket
 * - `EADDRINUSE`: the path is taken, by a live socket or by something that is not a socket
 * - `ENOTSUP`: this transport is not available here
 * - `ABORTED`: the caller's signal; its reason is the `cause`
 *
 * Every other code is the kernel's own errno, `EACCES` for instance.
 */
export type VsockErrorCode =
  | 'ECONNREFUSED'
  | 'ETIMEDOUT'
  | 'EPROTO'
  | 'ENOTSOCK'
  | 'EADDRINUSE'
  | 'ENOTSUP'
  | 'ABORTED'
  | (string & {})

export interface VsockErrorInit {
  code: VsockErrorCode
  op: VsockOperation
  /** What happened; the rest of the message is made from the other fields. */
  what: string
  /** What the reader can do about it. */
  next: string
  local?: Address | undefined
  remote?: Address | undefined
  retryable?: boolean | undefined
  cause?: unknown
}

const BRAND = Symbol.for('@upcall/vsock.VsockError')

/** Whatever goes wrong with a socket. Messages read `<op> <address>: <what>; <next step>`. */
export class VsockError extends Error {
  override readonly name = 'VsockError'
  readonly code: VsockErrorCode
  readonly op: VsockOperation
  readonly local: Address | undefined
  readonly remote: Address | undefined
  /** Whether the same call may succeed later without anybody changing it. */
  readonly retryable: boolean

  constructor({ code, op, what, next, local, remote, retryable = false, cause }: VsockErrorInit) {
    const address = remote ?? local
    super(`${address ? `${op} ${formatAddress(address)}` : op}: ${what}; ${next}`, cause === undefined ? undefined : { cause })
    this.code = code
    this.op = op
    this.local = local
    this.remote = remote
    this.retryable = retryable
    Object.defineProperty(this, BRAND, { value: true })
  }
}

/** `instanceof` that also holds between the ESM and the CommonJS copy of this package. */
export function isVsockError(value: unknown): value is VsockError {
  return typeof value === 'object' && value !== null && BRAND in value
}

/** The errno of a Node error, or `UNKNOWN`. */
export function errnoOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | null)?.code
  return typeof code === 'string' ? code : 'UNKNOWN'
}

export function abortedError(op: VsockOperation, address: Address, reason: unknown): VsockError {
  const which = op === 'listen' ? { local: address } : { remote: address }
  return new VsockError({
    code: 'ABORTED',
    op,
    ...which,
    what: 'aborted',
    next: "the cause is the signal's reason",
    cause: reason,
  })
}

/** What `connect(2)` and a broken handshake mean for the dialer. */
export function connectError(remote: Address, cause: unknown): VsockError {
  const errno = errnoOf(cause)
  const init = { op: 'connect', remote, cause } as const
  switch (errno) {
    case 'ENOENT':
      return new VsockError({
        ...init,
        code: 'ECONNREFUSED',
        retryable: true,
        what: 'nobody listens, there is no such file (ENOENT)',
        next: 'check the path, start its owner, or pass retry',
      })
    case 'ECONNREFUSED': {
      const kind = remote.transport === 'vsock' ? undefined : kindOfOther(remote.path)
      if (kind !== undefined)
        return new VsockError({
          ...init,
          code: 'ENOTSOCK',
          what: `the path is ${kind}, not a socket`,
          next: 'check the path: it is that of the socket that a VMM or a server made',
        })
      return new VsockError({
        ...init,
        code: 'ECONNREFUSED',
        retryable: true,
        what: 'nobody listens, the file has no live socket behind it',
        next: 'start its owner, or pass retry',
      })
    }
    // A full backlog: the Unix sockets' word for what AF_VSOCK answers with a reset.
    case 'EAGAIN':
      return new VsockError({
        ...init,
        code: 'ECONNREFUSED',
        retryable: true,
        what: 'the backlog is full (EAGAIN)',
        next: "raise the server's backlog, or pass retry",
      })
    case 'ECONNRESET':
    case 'EPIPE':
      return refusedByVmm(remote, cause)
    case 'EACCES':
    case 'EPERM':
      return new VsockError({
        ...init,
        code: errno,
        what: `not permitted (${errno})`,
        next: 'a Unix socket needs write permission on the file and search permission on its directories',
      })
    default:
      return new VsockError({ ...init, code: errno, what: `failed with ${errno}`, next: 'see the cause' })
  }
}

/** What is at a path where connect(2) found nobody, unless it is a socket. */
function kindOfOther(path: string): string | undefined {
  try {
    const found = statSync(path)
    if (found.isSocket()) return undefined
    return found.isDirectory() ? 'a directory' : found.isFile() ? 'a plain file' : 'something else'
  } catch {
    // Gone by now, for one.
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
    what: `nobody listens${port}, the connection was closed before it was accepted`,
    next: 'start the server in the guest, or pass retry',
  })
}
