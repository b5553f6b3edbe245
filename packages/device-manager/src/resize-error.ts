import { type Outcome, UpcallError, type UpcallErrorCode } from '@upcall/client'
import { brandOf, fieldsOf, textOf } from '@upcall/foundation/error'
import type { Arch } from '@upcall/wire'

/** vCPUs as `present` has them: sorted ids on x86_64, a count on aarch64. */
export type PresentOf<A extends Arch> = A extends 'x86_64' ? readonly number[] : number

/** What a resize changed: ids on both architectures (on aarch64 they count up from 0), and what is present now. */
export interface ResizeResult<A extends Arch> {
  readonly added: number[]
  readonly removed: number[]
  readonly present: PresentOf<A>
}

/** How far a failed resize got. */
export interface ResizeProgress<A extends Arch = Arch> extends ResizeResult<A> {
  /** The ids that the guest may have or not have. They were neither started nor stopped further, and are not in `present`. */
  readonly unknown: number[]
}

/** What a {@link ResizeError} is made of. */
export interface ResizeErrorFields<A extends Arch> extends ResizeProgress<A> {
  readonly code: UpcallErrorCode
  readonly outcome: Outcome
  readonly target: number
  readonly remote: string
  /** What ended the resize, and what then failed to take it back. */
  readonly errors: readonly [error: unknown, ...more: unknown[]]
  /** The step that failed. Left out: the first error says it. */
  readonly what?: string | undefined
}

const brand = brandOf('device-manager.ResizeError')

/**
 * A resize that began and failed. It wraps what ended it: `cause` is that error (for an abort, the signal's reason), and `code` and `outcome`
 * are those of that error. If the step could not be taken back either, `errors` has both failures.
 */
export class ResizeError<A extends Arch = Arch> extends UpcallError implements ResizeProgress<A> {
  override readonly name = 'ResizeError'
  readonly added: number[]
  readonly removed: number[]
  readonly present: PresentOf<A>
  readonly unknown: number[]
  /** All that failed, the first one first: one error, or two if going back failed too. */
  readonly errors: readonly unknown[]

  constructor({ code, outcome, target, remote, errors, what, added, removed, present, unknown }: ResizeErrorFields<A>) {
    const [first, ...more] = errors
    super({
      code,
      outcome,
      op: 'cpu.resize',
      subject: remote === 'guest' ? `${target}` : `${target} ${remote}`,
      what: [what ?? textOf(first), ...more.map((error) => `going back failed too: ${textOf(error)}`)].join('; '),
      next: advice(first, unknown),
      cause: code === 'ABORTED' && first instanceof Error ? first.cause : first,
    })
    this.errors = errors
    this.added = added
    this.removed = removed
    this.present = present
    this.unknown = unknown
    brand.mark(this)
  }
}

/** True for a {@link ResizeError} of any copy of this package: a resize that began, and says how far it got. */
export function isResizeError(value: unknown): value is ResizeError {
  return brand.has(value)
}

function advice(first: unknown, unknown: readonly number[]): string | undefined {
  if (unknown.length > 0) return `Look at the guest: it may have CPU ${unknown.join(', ')} or not.`
  return fieldsOf(first)?.next
}
