import { brandOf, FieldError } from '@upcall/foundation/error'

const brand = brandOf('trace.TraceError')

/**
 * - `CAPTURE`: bytes that are not a capture, or that break its format so that nothing after them can be read.
 * - `PACKET`: one packet that is not a vsock packet.
 * - `OUTPUT`: a capture could not be written.
 */
export type TraceErrorCode = 'CAPTURE' | 'PACKET' | 'OUTPUT'

/** The error of this package. */
export class TraceError extends FieldError<TraceErrorCode> {
  override readonly name = 'TraceError'

  constructor(fields: { code: TraceErrorCode; subject: string; what: string; next?: string | undefined; cause?: unknown }) {
    super(fields)
    brand.mark(this)
  }
}

/** True for a {@link TraceError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isTraceError(value: unknown): value is TraceError {
  return brand.has(value)
}
