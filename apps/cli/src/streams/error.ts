import { isTcpError, isVsockError, type TcpError, type VsockError } from '@upcall/vsock'
import { type ErrorReport, errorReport } from '../errors.js'

export function isStreamError(error: unknown): error is VsockError | TcpError {
  return isVsockError(error) || isTcpError(error)
}

const tcpNext: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'Start the server, or let --retry wait for it.',
  ABORTED: 'Nothing was sent.',
  ETIMEDOUT: 'Check the host, or allow more time with --timeout.',
}

/** The error with a next step for a person at a shell. */
export function explainStreamError(error: VsockError | TcpError): ErrorReport {
  if (isTcpError(error)) {
    const { code, op, subject, what, next } = error
    const interrupted = code === 'ABORTED' ? { cause: error.cause } : {}
    return errorReport({ code, op, subject, what, next: tcpNext[code] ?? next, ...interrupted })
  }
  const { code, op, subject, what, cause, attempts, elapsedMs } = error
  if (attempts !== undefined && isVsockError(cause)) {
    const bounds = `gave up after ${attempts} attempt${attempts === 1 ? '' : 's'} within ${Math.round(elapsedMs ?? 0)} ms`
    return errorReport({ code, op, subject, what: `${cause.what}; ${bounds}`, next: 'Allow more time with --timeout.', cause })
  }
  return errorReport({ code, op, subject, what, next: nextOf(error), ...(code === 'ABORTED' && { cause }) })
}

function nextOf({ code, op, remote, next }: VsockError): string {
  if (op === 'shutdown') return 'Let the peer end first, allow more time with --linger, or pass --half-close if the VMM has it.'
  if (code === 'ABORTED') return 'Nothing was sent.'
  if (op === 'pass' && code === 'ECONNREFUSED')
    return 'Start the VMM and the server in its guest, or let --retry wait for them. Of the VMMs only Dragonball has passfd.'
  if (op === 'connect' && code === 'ECONNREFUSED') return 'Start the server there, or let --retry wait for it.'
  if ((op === 'connect' || op === 'pass') && code === 'ETIMEDOUT') {
    const check = remote?.transport === 'vsock' ? 'the CID (local needs the module vsock_loopback)' : 'that the guest runs'
    return `Check ${check}, allow more time with --timeout, or let --retry keep trying.`
  }
  return next
}
