import { brandOf, errnoOf, FieldError } from '@upcall/foundation/error'
import { formatEndpoint, type TcpAddress } from './endpoint.js'

const brand = brandOf('vsock.TcpError')

/**
 * What a TCP endpoint fails with; a `VsockError` for TCP, with the same codes. `ENOTFOUND`: there is no host of that name. The message
 * reads `<op> <address>: <what>. <Next step.>`
 */
export class TcpError extends FieldError {
  override readonly name = 'TcpError'
  declare readonly op: 'connect' | 'listen'
  declare readonly next: string

  /** @param code - Default: the errno of the cause. */
  constructor(op: 'connect' | 'listen', address: TcpAddress, cause: unknown, code: string = errnoOf(cause)) {
    const [what, next] = (op === 'connect' ? connecting : listening)[code] ?? [`failed (${code})`, 'See tcp(7).']
    super({ code, op, subject: formatEndpoint(address), what, next, retryable: op === 'connect' && transient.has(code), cause })
    brand.mark(this)
  }
}

/** `instanceof` that also holds between the ESM and the CommonJS copy of this package. */
export function isTcpError(value: unknown): value is TcpError {
  return brand.has(value)
}

type Texts = Readonly<Record<string, readonly [what: string, next: string]>>

const transient: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EAI_AGAIN',
])

const connecting: Texts = {
  ECONNREFUSED: ['there is no listener', 'Start the server, or pass retry.'],
  ABORTED: ['aborted', "The cause is the signal's reason."],
  ETIMEDOUT: ['no answer in time', 'Check the host, or allow more time with timeoutMs.'],
  ENOTFOUND: ['no such host (ENOTFOUND)', 'Check its name.'],
  EAI_AGAIN: ['the name server does not answer (EAI_AGAIN)', 'Use an IP address, or try again.'],
}

const listening: Texts = {
  EADDRINUSE: ['the port is taken', 'Stop the other server, or choose another port (any for a free one).'],
  EACCES: ['ports below 1024 are privileged', 'Use a higher port.'],
  EADDRNOTAVAIL: [
    'this machine does not have that address',
    'Use 127.0.0.1, 0.0.0.0 for every interface, or leave the host out.',
  ],
  ABORTED: ['aborted', "The cause is the signal's reason."],
}
