import type { ConnectionOutcome } from './machine/connection.js'

/**
 * Why there is no connection, or no longer one:
 *
 * - `ECONNREFUSED`: nobody listens on that port in the guest
 * - `ETIMEDOUT`: the guest did not answer
 * - `ECONNRESET`: the guest reset it, was reset itself, or is gone
 * - `EPIPE`: written to a guest that takes no more: it has closed, or shut its receiving half
 * - `EPROTO`: the guest broke the rules of virtio-vsock on this connection
 * - `ENETDOWN`: no guest with a running driver is attached
 * - `EAGAIN`: the connection table is full; with `warning`: a VMM cannot be let in for now
 * - `EADDRINUSE`: somebody listens on the device's socket path
 * - `ABORTED`: the caller's signal, whose reason is the `cause`, the caller's `destroy()` before a write was done, or the device was closed
 */
export type VsockDeviceErrorCode =
  | 'ECONNREFUSED'
  | 'ETIMEDOUT'
  | 'ECONNRESET'
  | 'EPIPE'
  | 'EPROTO'
  | 'ENETDOWN'
  | 'EAGAIN'
  | 'EADDRINUSE'
  | 'ABORTED'

export interface VsockDeviceErrorInit {
  code: VsockDeviceErrorCode
  /** `connect guest 42 port 5000`. */
  subject: string
  what: string
  next: string
  retryable?: boolean | undefined
  cause?: unknown
}

const BRAND = Symbol.for('@upcall/vhost-user.VsockDeviceError')

/** What goes wrong with a device or one of its connections. Messages read `<subject>: <what>; <next step>`. */
export class VsockDeviceError extends Error {
  override readonly name = 'VsockDeviceError'
  readonly code: VsockDeviceErrorCode
  /** Whether the same call may succeed later without anybody changing it. */
  readonly retryable: boolean

  constructor({ code, subject, what, next, retryable = false, cause }: VsockDeviceErrorInit) {
    super(`${subject}: ${what}; ${next}`, cause === undefined ? undefined : { cause })
    this.code = code
    this.retryable = retryable
    Object.defineProperty(this, BRAND, { value: true })
  }
}

/** `instanceof` that also holds between the ESM and the CommonJS copy of this package. */
export function isVsockDeviceError(value: unknown): value is VsockDeviceError {
  return typeof value === 'object' && value !== null && BRAND in value
}

type Reason = Pick<VsockDeviceErrorInit, 'code' | 'what' | 'next' | 'retryable'>

const REASONS: Record<ConnectionOutcome, Reason> = {
  refused: {
    code: 'ECONNREFUSED',
    what: 'nobody listens on that port, or its backlog is full',
    next: 'start the server in the guest',
    retryable: true,
  },
  timeout: {
    code: 'ETIMEDOUT',
    what: 'the guest did not answer',
    next: 'see whether it is paused or still booting',
    retryable: true,
  },
  reset: {
    code: 'ECONNRESET',
    what: 'the guest has reset it or is gone',
    next: 'connect anew when the device runs',
    retryable: true,
  },
  violation: { code: 'EPROTO', what: 'the guest broke the rules of virtio-vsock', next: 'look at the guest’s driver' },
  done: {
    code: 'EPIPE',
    what: 'the guest takes no more: it has closed, or shut its receiving half',
    next: 'nothing more can be written',
  },
  aborted: { code: 'ABORTED', what: 'it was given up on this side', next: 'see the cause' },
}

export const outcomeError = (subject: string, outcome: ConnectionOutcome, cause?: unknown): VsockDeviceError =>
  new VsockDeviceError({ subject, ...REASONS[outcome], cause })
