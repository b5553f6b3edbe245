import { brandOf, FieldError } from '@upcall/foundation/error'

const brand = brandOf('wire.WireError')

/**
 * What was wrong:
 * - `ARGUMENT`: a value that cannot be put on the wire, or that every guest refuses. The caller's mistake.
 * - `LENGTH`: a buffer that is not, or does not hold, one whole message.
 * - `MAGIC`, `TYPE`, `SIZE`, `FLAGS`: the header's field of that name has a value that is not allowed here.
 */
export type WireErrorCode = 'ARGUMENT' | 'LENGTH' | 'MAGIC' | 'TYPE' | 'SIZE' | 'FLAGS'

/** The one error that this package throws, in either direction. Its `subject` is the `path`, and its message `<path>: <what>`. */
export class WireError extends FieldError<WireErrorCode> {
  override readonly name = 'WireError'

  /** @param path - The path of the offending value (`apicIds[1]`, `size`), or the header's field (`magic_version`). */
  constructor(
    code: WireErrorCode,
    /** Where: the path of the offending value (`apicIds[1]`, `size`), or the header's field (`magic_version`). */
    readonly path: string,
    what: string,
  ) {
    super({ code, subject: path, what })
    brand.mark(this)
  }
}

/** True for a {@link WireError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isWireError(value: unknown): value is WireError {
  return brand.has(value)
}
