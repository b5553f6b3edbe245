import { isVsockError, type VsockError } from '@upcall/vsock'
import { whatOf } from '../advice.js'
import { formatEndpoint, type TcpAddress } from './endpoint.js'

/** What a tcp endpoint fails with; a VsockError for TCP. */
export class TcpError extends Error {
  override readonly name = 'TcpError'
  readonly code: string
  readonly op: 'connect' | 'listen'
  /** Whether the same may succeed later without anybody changing it. */
  readonly retryable: boolean

  constructor(op: 'connect' | 'listen', address: TcpAddress, cause: unknown) {
    const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? 'UNKNOWN'
    const [what, next] = (op === 'connect' ? connecting : listening)[code] ?? [`failed with ${code}`, 'see tcp(7)']
    super(`${op} ${formatEndpoint(address)}: ${what}; ${next}`, { cause })
    this.code = code
    this.op = op
    this.retryable = op === 'connect' && transient.has(code)
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
  ECONNREFUSED: ['nobody listens', 'start the server, or let --retry wait for it'],
  ABORTED: ['aborted', 'nothing was sent'],
  ETIMEDOUT: ['no answer in time', 'check the host, or allow more with --timeout'],
  ENOTFOUND: ['no such host (ENOTFOUND)', 'check its name'],
  EAI_AGAIN: ['the name server does not answer (EAI_AGAIN)', 'use an IP address, or try again'],
}

const listening: Texts = {
  EADDRINUSE: ['the port is taken', 'stop the other server, or choose another port (any for a free one)'],
  EACCES: ['ports below 1024 are privileged', 'use a higher port'],
  EADDRNOTAVAIL: ['that is no address of this machine', 'use 127.0.0.1, 0.0.0.0 for every interface, or leave the host out'],
}

export function isStreamError(error: unknown): error is VsockError | TcpError {
  return isVsockError(error) || error instanceof TcpError
}

/** The error's message with a next step for whoever stands at a shell. */
export function explainStreamError(error: VsockError | TcpError): string {
  if (error instanceof TcpError) return error.message
  if (error.attempts !== undefined) return `${whatOf(error)}; --timeout allows more`
  return `${whatOf(error)}; ${nextOf(error)}`
}

function nextOf(error: VsockError): string {
  const { code, op, remote } = error
  if (op === 'shutdown') return 'let the peer end first, allow more with --linger, or pass --half-close if the VMM has it'
  if (code === 'ABORTED') return 'nothing was sent'
  if (op === 'connect' && code === 'ECONNREFUSED') return 'start the server there, or let --retry wait for it'
  if (op === 'connect' && code === 'ETIMEDOUT') {
    const check = remote?.transport === 'vsock' ? 'the CID (local needs the module vsock_loopback)' : 'that the guest runs'
    return `check ${check}, allow more with --timeout, or let --retry keep trying`
  }
  return error.next
}
