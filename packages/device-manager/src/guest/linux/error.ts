import { brandOf, type ErrorFields, FieldError } from '@upcall/foundation/error'

/**
 * - `ABORTED`: the owner's signal; `cause` is its reason.
 * - `TIMEOUT`: an operation took longer than it may. The kernel goes on with it; its outcome is not known.
 * - `FAILED`: the kernel did something else than it was asked for, and no result of the protocol says so.
 * - `UNSUPPORTED`: the kernel lacks what the call needs.
 */
export type LinuxGuestErrorCode = 'ABORTED' | 'TIMEOUT' | 'FAILED' | 'UNSUPPORTED'

const brand = brandOf('device-manager.LinuxGuestError')

/** An operation of {@link linuxGuest} whose outcome is not a result of the protocol, which ends its connection; or a failed {@link onlineMemory}. */
export class LinuxGuestError extends FieldError<LinuxGuestErrorCode> {
  override readonly name = 'LinuxGuestError'

  constructor(fields: ErrorFields<LinuxGuestErrorCode>) {
    super(fields)
    brand.mark(this)
  }
}

/** True for a {@link LinuxGuestError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isLinuxGuestError(value: unknown): value is LinuxGuestError {
  return brand.has(value)
}
