import { brandOf, type ErrorFields, FieldError } from '@upcall/foundation/error'

const brand = brandOf('client.UpcallError')

/**
 * What is known of a request that did not succeed:
 * - `guest-error`: the guest received it and refused.
 * - `indeterminate`: bytes of it were written and no valid reply arrived. The guest may have done all, a part or nothing of it.
 * - `not-sent`: no byte of it was written. It may be sent again without risk.
 */
export type Outcome = 'guest-error' | 'indeterminate' | 'not-sent'

/**
 * - `TIMEOUT`: a deadline passed. `ABORTED`: the caller's signal aborted; `cause` is its reason. `CLOSED`: the client was closed.
 * - `DISCONNECTED`: the connection ended during a request. `PROTOCOL`: the peer broke the protocol.
 * - `UNREACHABLE`: the reconnect budget is spent, or a dial error was final; `cause` is the last failure.
 * - `BUSY`: another operation is under way, and the caller asked not to wait. `QUEUE_FULL`: the queue is at its limit.
 * - `GUEST_ERROR`: the guest refused.
 * - `CALLBACK`: a function that the caller supplied threw, or returned a value that is not allowed; `cause` says which.
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

/** What an {@link UpcallError} is made of. `op` is the operation or the request in a few words, `subject` the other end. */
export interface UpcallErrorFields extends ErrorFields<UpcallErrorCode> {
  readonly outcome: Outcome
}

/**
 * The base of every error with which an operation on a guest rejects. A program branches on `code` and `outcome`; the message,
 * `<op> <subject>: <what>. <Next sentence.>`, is for a person.
 */
export class UpcallError extends FieldError<UpcallErrorCode> {
  override readonly name: string = 'UpcallError'
  /** What is known of the request. */
  readonly outcome: Outcome

  constructor(fields: UpcallErrorFields) {
    super(fields)
    this.outcome = fields.outcome
    brand.mark(this)
  }
}

/** The peer broke the protocol: a wrong magic, type or size, or bytes that no request asked for. */
export class ProtocolError extends UpcallError {
  override readonly name = 'ProtocolError'
  constructor(fields: Omit<UpcallErrorFields, 'code'>) {
    super({ ...fields, code: 'PROTOCOL' })
  }
}

/** A deadline passed. */
export class TimeoutError extends UpcallError {
  override readonly name = 'TimeoutError'
  constructor(fields: Omit<UpcallErrorFields, 'code'>) {
    super({ ...fields, code: 'TIMEOUT' })
  }
}

/** The client was closed. */
export class ClosedError extends UpcallError {
  override readonly name = 'ClosedError'
  constructor(fields: Omit<UpcallErrorFields, 'code'>) {
    super({ ...fields, code: 'CLOSED' })
  }
}

/** True for an {@link UpcallError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isUpcallError(value: unknown): value is UpcallError {
  return brand.has(value)
}

/** The error of a code, in the class that goes with it. */
export function errorOf(fields: UpcallErrorFields): UpcallError {
  switch (fields.code) {
    case 'PROTOCOL':
      return new ProtocolError(fields)
    case 'TIMEOUT':
      return new TimeoutError(fields)
    case 'CLOSED':
      return new ClosedError(fields)
    default:
      return new UpcallError(fields)
  }
}
