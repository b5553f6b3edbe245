// An error is data: a program branches on its fields, and only a person reads the message, which is made of them here and nowhere else.

/** What every error of this repository consists of. */
export interface ErrorFields<Code extends string = string> {
  /** What went wrong, for a program to branch on. */
  readonly code: Code
  /** The operation that failed, e.g. `connect`, `pci.remove`. */
  readonly op?: string | undefined
  /** What the operation was about: an address, a device, a path. Empty where the operation says it all. */
  readonly subject: string
  /** What happened: a clause in the present tense, without a full stop. */
  readonly what: string
  /** What the reader can do about it: one or two whole sentences. */
  readonly next?: string | undefined
  /** Whether the same call may succeed later although the caller changes nothing. Default false. */
  readonly retryable?: boolean | undefined
  /** What it came from; for an abort the signal's reason. */
  readonly cause?: unknown
}

/** The base of the error classes. Each package has its own copy, so that `instanceof` between packages means nothing; use the type guards. */
export abstract class FieldError<Code extends string = string> extends Error {
  /** What went wrong, for a program to branch on. */
  readonly code: Code
  /** The operation that failed. */
  readonly op: string | undefined
  /** What the operation was about. */
  readonly subject: string
  /** What happened, without the operation, the subject and the advice. */
  readonly what: string
  /** What the reader can do about it. */
  readonly next: string | undefined
  /** Whether the same call may succeed later although the caller changes nothing. */
  readonly retryable: boolean

  /** @param more - What follows the message on lines of its own, for a person: the end of a log, say. */
  constructor(fields: ErrorFields<Code>, more = '') {
    super(
      more === '' ? messageOf(fields) : `${messageOf(fields)}\n${more}`,
      fields.cause === undefined ? undefined : { cause: fields.cause },
    )
    this.code = fields.code
    this.op = fields.op
    this.subject = fields.subject
    this.what = fields.what
    this.next = fields.next
    this.retryable = fields.retryable ?? false
  }
}

/** `<op> <subject>: <what>. <Next.>` */
export function messageOf({ op, subject, what, next }: Omit<ErrorFields, 'code'>): string {
  const about = [op, subject].filter((part) => part !== undefined && part !== '').join(' ')
  const happened = about === '' ? what : `${about}: ${what}`
  return next === undefined ? happened : `${happened}. ${next}`
}

/** Marks the errors of one class, so that a guard finds them whichever copy of the package made them (ESM or CommonJS). */
export function brandOf(name: string): { mark(error: Error): void; has(value: unknown): boolean } {
  const brand = Symbol.for(`@upcall/${name}`)
  return {
    mark: (error) => void Object.defineProperty(error, brand, { value: true }),
    has(value) {
      try {
        return typeof value === 'object' && value !== null && brand in value
      } catch {
        // A proxy that throws is not an error of this repository.
        return false
      }
    },
  }
}

/** The fields of an error of this repository, whichever package it comes from; undefined for all others. */
export function fieldsOf(error: unknown): ErrorFields | undefined {
  try {
    if (!(error instanceof Error)) return undefined
    const { code, subject, what } = error as Partial<FieldError>
    return typeof code === 'string' && typeof subject === 'string' && typeof what === 'string' ? (error as FieldError) : undefined
  } catch {
    // A revoked proxy, or a getter that throws: not an error of this repository.
    return undefined
  }
}

/**
 * Why something failed, for a person and as a part of another message: an error of ours says `what`, without its subject and advice.
 * Of a foreign error there is nothing but its text. This is the one place that reads it.
 */
export function textOf(error: unknown): string {
  const fields = fieldsOf(error)
  if (fields !== undefined) return fields.what
  try {
    // reads the text of anything foreign
    return error instanceof Error ? error.message || error.name : String(error)
  } catch {
    return 'a value that cannot be shown'
  }
}

/** The whole message of any error, for a printer. */
export function messageFor(error: unknown): string {
  const fields = fieldsOf(error)
  // prints
  return fields === undefined ? textOf(error) : (fields as FieldError).message
}

/** The errno of a Node error (`ECONNREFUSED`), or `UNKNOWN`. */
export function errnoOf(error: unknown): string {
  try {
    const code = (error as { code?: unknown } | null | undefined)?.code
    return typeof code === 'string' ? code : 'UNKNOWN'
  } catch {
    // A revoked proxy, or a getter that throws.
    return 'UNKNOWN'
  }
}
