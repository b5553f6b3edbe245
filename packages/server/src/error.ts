import { brandOf, FieldError } from '@upcall/foundation/error'

const brand = brandOf('server.ConnectionEndedError')

/** A service waited (`connection.delay`), and its connection ended first. */
export class ConnectionEndedError extends FieldError<'DISCONNECTED'> {
  override readonly name = 'ConnectionEndedError'

  constructor(connection: number, op: string, what: string) {
    super({ code: 'DISCONNECTED', op, subject: `connection ${connection}`, what })
    brand.mark(this)
  }
}

/** True for a {@link ConnectionEndedError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isConnectionEndedError(value: unknown): value is ConnectionEndedError {
  return brand.has(value)
}
