import type { Outcome } from '@upcall/client'
import { brandOf, type ErrorFields, FieldError } from '@upcall/foundation/error'

/**
 * - `INVALID`: this machine cannot do what was asked. `NOT_FOUND`: there is nothing with that id.
 * - `CONFLICT`: the id or the address is taken, or it is unknown whether the guest has it.
 * - `BUSY`: another change is under way. `NOT_READY`: the hardware or the guest cannot be asked now. `EXHAUSTED`: no window, line or
 *   slot is free.
 * - `UNFINISHED`: the guest was asked and has not done all of it; it may go on.
 * - `UNSAVED`: the state could not be saved, so nothing was begun.
 * - `INCOMPLETE`: the change failed, and there is more to say than one error can: `errors` has all of them, the first one first.
 */
export type VmErrorCode =
  | 'INVALID'
  | 'NOT_FOUND'
  | 'CONFLICT'
  | 'BUSY'
  | 'NOT_READY'
  | 'EXHAUSTED'
  | 'UNFINISHED'
  | 'UNSAVED'
  | 'INCOMPLETE'

/** What a {@link VmError} consists of. */
export interface VmErrorFields extends ErrorFields<VmErrorCode> {
  /** Default: `indeterminate` for `UNFINISHED`, else `not-sent`. */
  readonly outcome?: Outcome | undefined
  /** All that failed, the first one first. Default: none but this. */
  readonly errors?: readonly unknown[] | undefined
}

const brand = brandOf('vmm.VmError')

/** The VMM's own refusal. What the guest refuses or does not answer is the client's error, unless there is more to say. */
export class VmError extends FieldError<VmErrorCode> {
  override readonly name = 'VmError'
  /** What is known of the request to the guest, if there was one. */
  readonly outcome: Outcome
  /** All that failed, the first one first. Empty where the `cause` says it all. */
  readonly errors: readonly unknown[]

  constructor(fields: VmErrorFields) {
    super(fields)
    this.outcome = fields.outcome ?? (fields.code === 'UNFINISHED' ? 'indeterminate' : 'not-sent')
    this.errors = fields.errors ?? []
    brand.mark(this)
  }
}

/** True for a {@link VmError} of any copy of this package: `instanceof` fails between its ESM and its CommonJS build. */
export function isVmError(value: unknown): value is VmError {
  return brand.has(value)
}
