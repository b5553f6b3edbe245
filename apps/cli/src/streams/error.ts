import { errnoOf, FieldError } from '@upcall/foundation/error'
import { isVsockError, type VsockError } from '@upcall/vsock'
import { type ErrorReport, errorReport } from '../errors.js'
import { formatEndpoint, type TcpAddress } from './endpoint.js'

/** What a tcp endpoint fails with; a VsockError for TCP. */
export class TcpError extends FieldError {
  override readonly name = 'TcpError'
  declare readonly op: 'connect' | 'listen'

  constructor(op: 'connect' | 'listen', address: TcpAddress, cause: unknown, code: string = errnoOf(cause)) {
    const [what, next] = (op === 'connect' ? connecting : listening)[code] ?? [`failed (${code})`, 'See tcp(7).']
    super({ code, op, subject: formatEndpoint(address), what, next, retryable: op === 'connect' && transient.has(code), cause })
  }
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
  ECONNREFUSED: ['there is no listener', 'Start the server, or let --retry wait for it.'],
  ABORTED: ['aborted', 'Nothing was sent.'],
  ETIMEDOUT: ['no answer in time', 'Check the host, or allow more time with --timeout.'],
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
}

export function isStreamError(error: unknown): error is VsockError | TcpError {
  return isVsockError(error) || error instanceof TcpError
}

/** The error with a next step for a person at a shell. */
export function explainStreamError(error: VsockError | TcpError): ErrorReport {
  if (error instanceof TcpError) return errorReport(error)
  const { code, op, subject, what, cause, attempts, elapsedMs } = error
  if (attempts !== undefined && isVsockError(cause)) {
    const bounds = `gave up after ${attempts} attempt${attempts === 1 ? '' : 's'} within ${Math.round(elapsedMs ?? 0)} ms`
    return errorReport({ code, op, subject, what: `${cause.what}; ${bounds}`, next: 'Allow more time with --timeout.' })
  }
  return errorReport({ code, op, subject, what, next: nextOf(error) })
}

function nextOf({ code, op, remote, next }: VsockError): string {
  if (op === 'shutdown') return 'Let the peer end first, allow more time with --linger, or pass --half-close if the VMM has it.'
  if (code === 'ABORTED') return 'Nothing was sent.'
  if (op === 'connect' && code === 'ECONNREFUSED') return 'Start the server there, or let --retry wait for it.'
  if (op === 'connect' && code === 'ETIMEDOUT') {
    const check = remote?.transport === 'vsock' ? 'the CID (local needs the module vsock_loopback)' : 'that the guest runs'
    return `Check ${check}, allow more time with --timeout, or let --retry keep trying.`
  }
  return next
}
