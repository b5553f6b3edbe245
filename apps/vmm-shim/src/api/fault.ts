import { isUpcallError, type Outcome } from '@upcall/client'
import { guestErrorOf } from '@upcall/device-manager'
import { FieldError, fieldsOf, messageFor, messageOf, textOf } from '@upcall/foundation/error'
import { isVmError, type VmError, type VmErrorCode } from '@upcall/vmm'
import { isWireError } from '@upcall/wire'

/** The body of every answer that is not a success. */
export interface FaultBody {
  fault_message: string
  /** What went wrong, in one word: docs/errors.md has an entry for each. */
  code: string
  outcome: Outcome
  /** The guest's result if it refused: a negative errno, −1 for a command that its kernel does not have, or +1. */
  errno: number | null
}

/** A request that is wrong in itself. */
export class HttpError extends FieldError<'HTTP'> {
  override readonly name = 'HttpError'
  readonly headers: Readonly<Record<string, string>>

  constructor(
    readonly status: number,
    subject: string,
    what: string,
    { next, headers = {} }: { next?: string; headers?: Record<string, string> } = {},
  ) {
    super({ code: 'HTTP', subject, what, next })
    this.headers = headers
  }
}

const VM_STATUS: Record<Exclude<VmErrorCode, 'INCOMPLETE'>, number> = {
  INVALID: 400,
  NOT_FOUND: 404,
  CONFLICT: 409,
  BUSY: 429,
  NOT_READY: 503,
  EXHAUSTED: 503,
  UNFINISHED: 504,
  UNSAVED: 503,
}

const OUTCOME_STATUS: Record<Outcome, number> = { 'guest-error': 502, 'not-sent': 503, indeterminate: 504 }

interface Fault {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: FaultBody
}

/** The status and the body that say what went wrong. */
export function faultOf(error: unknown): Fault {
  if (error instanceof HttpError) return { status: error.status, headers: error.headers, body: body(error, 'not-sent') }
  if (isWireError(error)) return { status: 400, body: body(error, 'not-sent') }
  if (isVmError(error)) return { status: vmStatus(error), body: body(error, error.outcome) }
  if (isUpcallError(error)) {
    const status = error.code === 'BUSY' ? 429 : OUTCOME_STATUS[error.outcome]
    return { status, body: body(error, error.outcome) }
  }
  const fault_message = `internal error: ${textOf(error)}`
  return { status: 500, body: { fault_message, code: 'INTERNAL', outcome: 'indeterminate', errno: null } }
}

function vmStatus({ code, outcome }: VmError): number {
  return code === 'INCOMPLETE' ? OUTCOME_STATUS[outcome] : VM_STATUS[code]
}

function body(error: unknown, outcome: Outcome): FaultBody {
  const failed = isVmError(error) ? [error, ...error.errors] : [error]
  const refusal = failed.map(guestErrorOf).find((each) => each !== undefined)
  const code = fieldsOf(error)?.code ?? 'INTERNAL'
  return { fault_message: messageWithReason(error), code, outcome, errno: refusal?.errno ?? null }
}

/** The reader of an answer cannot look at the cause of an abort. So the message has it. */
function messageWithReason(error: unknown): string {
  if (!isUpcallError(error) || error.code !== 'ABORTED') return messageFor(error)
  const { op, subject, what, next, cause } = error
  return messageOf({ op, subject, what: `${what}: ${textOf(cause)}`, next })
}
