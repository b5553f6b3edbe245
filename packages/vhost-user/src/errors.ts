import { brandOf, type ErrorFields, FieldError, textOf } from '@upcall/foundation/error'
import type { ConnectionOutcome } from './machine/life.js'
import type { SocketType } from './machine/packet.js'
import type { PolicyRefusal } from './machine/policy.js'

/**
 * Why there is no connection, or no longer one:
 *
 * - `ECONNREFUSED`: there is no listener on that port in the guest
 * - `ETIMEDOUT`: the guest did not answer
 * - `ECONNRESET`: the guest reset it, was reset itself, or is gone
 * - `EPIPE`: written to a guest that takes no more: it has closed, or shut its receiving half
 * - `EMSGSIZE`: a message that is longer than the guest's buffer, or than this side's
 * - `EPROTO`: the guest broke the rules of virtio-vsock on this connection; with `warning`: a VMM was refused a request
 * - `EPROTOTYPE`: a stream where the connection carries messages, or the other way round
 * - `ESOCKTNOSUPPORT`: messages to a guest whose driver has no SOCK_SEQPACKET
 * - `ENETDOWN`: no guest with a running driver is attached
 * - `EAGAIN`: the connection table is full, or the guest's policy does not allow more connections now; with `warning`: a VMM cannot be let in for now
 * - `EACCES`: the guest's policy does not allow this connection
 * - `EADDRINUSE`: another process listens on the device's socket path, or another device of the network has the CID
 * - `ABORTED`: the caller's signal, whose reason is the `cause`; the caller's `destroy()` before a write was done; or the device was closed
 */
export type VsockDeviceErrorCode =
  | 'ECONNREFUSED'
  | 'ETIMEDOUT'
  | 'ECONNRESET'
  | 'EPIPE'
  | 'EMSGSIZE'
  | 'EPROTO'
  | 'EPROTOTYPE'
  | 'ESOCKTNOSUPPORT'
  | 'ENETDOWN'
  | 'EAGAIN'
  | 'EACCES'
  | 'EADDRINUSE'
  | 'ABORTED'

export type VsockDeviceErrorInit = ErrorFields<VsockDeviceErrorCode>

const brand = brandOf('vhost-user.VsockDeviceError')

/** What goes wrong with a device or one of its connections. */
export class VsockDeviceError extends FieldError<VsockDeviceErrorCode> {
  override readonly name = 'VsockDeviceError'

  constructor(fields: VsockDeviceErrorInit) {
    super(fields)
    brand.mark(this)
  }
}

/** `instanceof` that also holds between the ESM and the CommonJS copy of this package. */
export function isVsockDeviceError(value: unknown): value is VsockDeviceError {
  return brand.has(value)
}

type Reason = Pick<VsockDeviceErrorInit, 'code' | 'what' | 'next' | 'retryable'>

const REASONS: Record<ConnectionOutcome, Reason> = {
  refused: {
    code: 'ECONNREFUSED',
    what: 'there is no listener on that port, or its backlog is full',
    next: 'Start the server in the guest.',
    retryable: true,
  },
  timeout: {
    code: 'ETIMEDOUT',
    what: 'the guest did not answer',
    next: 'Check whether the guest is paused or still booting.',
    retryable: true,
  },
  reset: {
    code: 'ECONNRESET',
    what: 'the guest reset the connection, or is gone',
    next: 'Connect again when the device is running.',
    retryable: true,
  },
  violation: { code: 'EPROTO', what: 'the guest broke the rules of virtio-vsock', next: "Check the guest's driver." },
  done: {
    code: 'EPIPE',
    what: 'the guest takes no more bytes: it has closed, or shut its receiving half',
    next: 'Nothing more can be written.',
  },
  aborted: { code: 'ABORTED', what: 'the connection was given up on this side' },
}

/** @param op `connect` or `accept`; undefined for a connection that was open. */
export const outcomeError = (
  op: string | undefined,
  subject: string,
  outcome: ConnectionOutcome,
  cause?: unknown,
): VsockDeviceError => new VsockDeviceError({ op, subject, ...REASONS[outcome], cause })

/** @param cause the signal's reason. */
export const abortedError = (op: string, subject: string, cause: unknown): VsockDeviceError =>
  new VsockDeviceError({ code: 'ABORTED', op, subject, what: 'the caller gave up', cause })

/** The policy of the guest refuses a connection of the host. */
export function policyError(subject: string, refusal: PolicyRefusal): VsockDeviceError {
  const [code, what] = POLICY_REASONS[refusal]
  const retryable = code === 'EAGAIN'
  const next = retryable ? 'Try again later, or change its limits with setPolicy().' : 'Add a rule with setPolicy().'
  return new VsockDeviceError({ code, op: 'connect', subject, what: `its policy ${what}`, next, retryable })
}

const POLICY_REASONS: Record<PolicyRefusal, readonly ['EACCES' | 'EAGAIN', string]> = {
  'policy-port': ['EACCES', 'does not allow connections from the host to this port'],
  'policy-connections': ['EAGAIN', 'allows no more connections at once'],
  'policy-rate': ['EAGAIN', 'allows no more connections a second'],
}

export const tableFullError = (subject: string, max: number): VsockDeviceError =>
  new VsockDeviceError({
    code: 'EAGAIN',
    op: 'connect',
    subject,
    what: `all ${max} connections are in use`,
    next: 'Close some, or raise maxConnections.',
    retryable: true,
  })

/** A message of `length` bytes where `max` is the most. */
export const tooLongError = (subject: string, length: number, max: number): VsockDeviceError =>
  new VsockDeviceError({
    code: 'EMSGSIZE',
    op: 'send',
    subject,
    what: `the message has ${length} bytes, and the smaller of the guest's buffer and bufferBytes has ${max}`,
    next: "Send it in parts, or raise both: SO_VM_SOCKETS_BUFFER_SIZE of the guest's socket, and bufferBytes.",
  })

/** `send()` after `end()`. */
export const endedError = (subject: string): VsockDeviceError =>
  new VsockDeviceError({ code: 'EPIPE', op: 'send', subject, what: 'end() was called', next: 'Send before the end.' })

/** @param has what the guest's socket is: SOCK_STREAM or SOCK_SEQPACKET. */
export const wrongSocketError = (subject: string, has: SocketType): VsockDeviceError =>
  new VsockDeviceError({
    code: 'EPROTOTYPE',
    op: 'accept',
    subject,
    what: has === 'stream' ? 'the guest has a stream, and not messages' : 'the guest has messages, and not a stream',
    next: has === 'stream' ? 'Use accept(), or answer with a Duplex.' : 'Use acceptSeqpacket(), or answer with a message socket.',
  })

/** The guest's driver has not taken VIRTIO_VSOCK_F_SEQPACKET. */
export const noSeqpacketError = (subject: string): VsockDeviceError =>
  new VsockDeviceError({
    code: 'ESOCKTNOSUPPORT',
    op: 'connect',
    subject,
    what: "the guest's driver has not taken VIRTIO_VSOCK_F_SEQPACKET",
    next: 'It takes Linux 5.14 and QEMU 6.1, without seqpacket=off.',
  })

/** A joined host that is broken off, because `max` others were joined later and drain, too. */
export const tooManyError = (max: number): VsockDeviceError =>
  new VsockDeviceError({
    code: 'ECONNRESET',
    subject: 'joined stream',
    what: `the guest has gone, and ${max} streams joined later have its last bytes yet to take as well`,
    next: 'Read faster, or raise maxConnections.',
  })

/** @param cause why the device did not do what the VMM asked for. */
export const refusedError = (subject: string, cause: FieldError): VsockDeviceError =>
  new VsockDeviceError({
    code: 'EPROTO',
    op: 'vhost-user',
    subject,
    what: `the VMM was refused a request: ${textOf(cause)}`,
    next: 'Check what the VMM made of it: it has been told.',
    cause,
  })
