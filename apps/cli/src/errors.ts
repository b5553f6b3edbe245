// The errors of the tool itself, and the one shape in which it reports any error.

import { type ErrorFields, FieldError, fieldsOf, messageOf, textOf } from '@upcall/foundation/error'

/** The key of a report's codes. A symbol, because they are not printed. */
export const CODES: unique symbol = Symbol('codes')

/** An error as `--json` prints it. `message` is made of the other fields. */
export interface ErrorReport {
  code: string
  /** The code, and after it those of the errors that it came from: the last that docs/errors.md has says most. Missing if there is one only. */
  [CODES]?: readonly string[]
  /** The operation that failed. */
  op?: string
  /** What the operation was about. */
  subject?: string
  what: string
  /** What can be done about it. */
  next?: string
  message: string
}

/**
 * @param error - With a `cause` where the entry of the cause in docs/errors.md says more than that of the error.
 * @param request - What the user asked for, where `op` is only a step of it.
 */
export function errorReport({ code, op, subject, what, next, cause }: ErrorFields, request?: string): ErrorReport {
  const message =
    request === undefined
      ? messageOf({ op, subject, what, next })
      : messageOf({ subject: request, what: messageOf({ op, subject, what }), next })
  const codes = [code, ...codesOf(cause)]
  return {
    code,
    ...(codes.length > 1 && { [CODES]: codes }),
    ...(op && { op }),
    ...(subject !== '' && { subject }),
    what,
    ...(next && { next }),
    message,
  }
}

/** The codes of an error of ours and of its causes. An errno of Node is not one of them: what it means depends on who says it. */
function codesOf(error: unknown): string[] {
  const codes = []
  for (let fields = fieldsOf(error); fields !== undefined; fields = fieldsOf(fields.cause)) codes.push(fields.code)
  return codes
}

/** What was asked of upcall cannot be understood or done as it was written. */
export class UsageError extends FieldError<'USAGE'> {
  override readonly name = 'UsageError'

  /** @param subject - The option, the argument or the line that is wrong. */
  constructor(subject: string, what: string, next?: string, cause?: unknown) {
    super({ code: 'USAGE', subject, what, next, cause })
  }

  /** For an error that says what is wrong with what the user wrote in `source`. */
  static of(source: string, error: unknown): UsageError {
    const fields = fieldsOf(error)
    if (fields === undefined) return new UsageError(source, textOf(error), undefined, error)
    const { op, subject, what, next } = fields
    return new UsageError(source, messageOf({ op, subject, what }), next, error)
  }
}

/** Why a command was aborted, as the reason of its AbortSignal. */
export class Interrupted extends FieldError<'INTERRUPTED'> {
  override readonly name = 'Interrupted'

  constructor(readonly signal: 'SIGINT' | 'SIGPIPE' | 'SIGTERM') {
    super({ code: 'INTERRUPTED', subject: '', what: `interrupted by ${signal}` })
  }
}

/** A command that cannot report its result was aborted: writing to stdout failed, and not because its reader left. */
export class OutputError extends FieldError<'OUTPUT'> {
  override readonly name = 'OutputError'

  constructor(cause: Error) {
    const next = 'The result of the command is unknown, and so is the output that was not written.'
    super({ code: 'OUTPUT', subject: 'stdout', what: textOf(cause), next, cause })
  }
}
