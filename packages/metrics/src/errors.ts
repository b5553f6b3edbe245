import { brandOf, type ErrorFields, FieldError } from '@upcall/foundation/error'

/**
 * - `PEER_MISSING`: the library that the entry is for is not installed
 * - `ALREADY_COLLECTED`: the registry has these metrics already
 * - `ARGUMENT`: an address that cannot be read
 *
 * Every other code is the errno with which `serveMetrics` could not listen: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`.
 */
export type MetricsErrorCode = 'PEER_MISSING' | 'ALREADY_COLLECTED' | 'ARGUMENT' | (string & {})

const brand = brandOf('metrics.MetricsError')

/** An error of this package. The message reads `<op> <subject>: <what>. <Next step.>` */
export class MetricsError extends FieldError<MetricsErrorCode> {
  override readonly name = 'MetricsError'

  constructor(fields: ErrorFields<MetricsErrorCode>) {
    super(fields)
    brand.mark(this)
  }
}

/** `instanceof` that also holds between the ESM and the CommonJS copy of this package. */
export function isMetricsError(value: unknown): value is MetricsError {
  return brand.has(value)
}

/** An optional peer, which may not be there. @throws {@link MetricsError} `PEER_MISSING` that says what to install. */
export async function peer<T>(op: string, name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    throw new MetricsError({
      code: 'PEER_MISSING',
      op,
      subject: name,
      what: 'the package cannot be loaded',
      next: `It is an optional peer of @upcall/metrics: run "npm install ${name}".`,
      cause,
    })
  }
}
