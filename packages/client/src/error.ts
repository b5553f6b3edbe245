const brand = Symbol.for('@upcall/client.UpcallError')

/**
 * What is known of a request that did not succeed:
 * - `guest-error`: the guest got it and refused.
 * - `indeterminate`: bytes of it were written and no valid reply came. The guest may have done it, in whole or in part, or not.
 * - `not-sent`: no byte of it was written. It may be sent again without risk.
 */
export type Outcome = 'guest-error' | 'indeterminate' | 'not-sent'

/**
 * - `TIMEOUT`: a deadline passed. `ABORTED`: the caller's signal; `cause` is its reason. `CLOSED`: the client was closed.
 * - `DISCONNECTED`: the connection ended while a request was under way. `PROTOCOL`: the peer broke the protocol.
 * - `UNREACHABLE`: the reconnect budget is spent or a dial error was final; `cause` is the last failure.
 * - `BUSY`: another operation is under way and the caller asked not to wait. `QUEUE_FULL`: as many requests wait as may.
 * - `GUEST_ERROR`: the guest refused.
 * - `CALLBACK`: a function that the caller supplied threw, or returned what it may not; `cause` says what.
 */
export type UpcallErrorCode =
  | 'TIMEOUT'
  | 'ABORTED'
  | 'CLOSED'
  | 'DISCONNECTED'
  | 'PROTOCOL'
  | 'UNREACHABLE'
  | 'BUSY'
  | 'QUEUE_FULL'
  | 'GUEST_ERROR'
  | 'CALLBACK'

/** The base of every error with which an operation on a guest is rejected. Messages read `<op> <subject> <remote>: <what>; <next step>`. */
export class UpcallError extends Error {
  override readonly name: string = 'UpcallError'
  readonly code: UpcallErrorCode
  readonly outcome: Outcome

  constructor(code: UpcallErrorCode, outcome: Outcome, message: string, options?: { cause?: unknown }) {
    super(message, options !== undefined && options.cause !== undefined ? { cause: options.cause } : undefined)
    this.code = code
    this.outcome = outcome
    Object.defineProperty(this, brand, { value: true })
  }
}

/** The peer broke the protocol: a wrong magic, type or size, or bytes that nobody asked for. */
export class ProtocolError extends UpcallError {
  override readonly name = 'ProtocolError'
  constructor(outcome: Outcome, message: string, options?: { cause?: unknown }) {
    super('PROTOCOL', outcome, message, options)
  }
}

/** A deadline passed. */
export class TimeoutError extends UpcallError {
  override readonly name = 'TimeoutError'
  constructor(outcome: Outcome, message: string, options?: { cause?: unknown }) {
    super('TIMEOUT', outcome, message, options)
  }
}

/** The client was closed. */
export class ClosedError extends UpcallError {
  override readonly name = 'ClosedError'
  constructor(outcome: Outcome, message: string, options?: { cause?: unknown }) {
    super('CLOSED', outcome, message, options)
  }
}

/** True for an {@link UpcallError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isUpcallError(value: unknown): value is UpcallError {
  return typeof value === 'object' && value !== null && brand in value
}

/** The error of a code, in the class that goes with it. */
export function errorOf(code: UpcallErrorCode, outcome: Outcome, message: string, cause?: unknown): UpcallError {
  switch (code) {
    case 'PROTOCOL':
      return new ProtocolError(outcome, message, { cause })
    case 'TIMEOUT':
      return new TimeoutError(outcome, message, { cause })
    case 'CLOSED':
      return new ClosedError(outcome, message, { cause })
    default:
      return new UpcallError(code, outcome, message, { cause })
  }
}
