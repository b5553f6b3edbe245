import { isUpcallError, type Outcome } from '@upcall/client'
import { isGuestError } from '@upcall/device-manager'
import { isVmError, type VmErrorCode } from '@upcall/vmm'
import { isWireError } from '@upcall/wire'

/** The body of every answer that is not a success. */
export interface FaultBody {
  fault_message: string
  outcome: Outcome
  /** The guest's result where it gave one: a negative errno, −1 for no such command, or +1. */
  errno: number | null
}

/** A request that is wrong in itself. */
export class HttpError extends Error {
  override readonly name = 'HttpError'
  readonly status: number
  readonly headers: Record<string, string>

  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.status = status
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

/** Status and body for what went wrong; undefined for a bug. */
export function faultOf(error: unknown): { status: number; headers?: Record<string, string>; body: FaultBody } | undefined {
  const body = (outcome: Outcome, errno: number | null = null): FaultBody => ({
    fault_message: messageOf(error as Error),
    outcome,
    errno,
  })
  if (error instanceof HttpError) return { status: error.status, headers: error.headers, body: body('not-sent') }
  if (isVmError(error)) {
    const { code, outcome, errors } = error
    const errno = errors.find(isGuestError)?.errno
    return { status: code === 'INCOMPLETE' ? OUTCOME_STATUS[outcome] : VM_STATUS[code], body: body(outcome, errno) }
  }
  if (isWireError(error)) return { status: 400, body: body('not-sent') }
  if (!isUpcallError(error)) return undefined
  const status = error.code === 'BUSY' ? 429 : OUTCOME_STATUS[error.outcome]
  return { status, body: body(error.outcome, isGuestError(error) ? error.errno : null) }
}

/** Who reads an answer cannot look at a cause: where a message sends them there, or leaves the reason to it, it is in the answer too. */
function messageOf(error: Error): string {
  const { message, cause } = error
  const needsCause = message.includes('look at cause') || (isUpcallError(error) && error.code === 'ABORTED')
  if (!(cause instanceof Error) || !needsCause) return message
  const causes = cause instanceof AggregateError ? (cause.errors as Error[]) : [cause]
  return `${message}: ${causes.map(messageOf).join('; ')}`
}
