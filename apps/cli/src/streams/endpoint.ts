import { AddressError, type Endpoint, parseEndpoint } from '@upcall/vsock'
import { UPCALL_PORT } from '@upcall/wire'
import { UsageError } from '../errors.js'

/**
 * The forms of the library's endpoints. The port that an address of a guest may leave out is upcall's own.
 *
 * @throws UsageError for anything else; `source` is where the user wrote it.
 */
export function parseStreamEndpoint(text: string, source: string): Endpoint {
  try {
    return parseEndpoint(text, { defaultPort: UPCALL_PORT })
  } catch (error) {
    if (error instanceof AddressError) throw UsageError.of(source, error)
    throw error
  }
}
