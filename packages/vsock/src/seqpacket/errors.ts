import type { Address } from '../address.js'
import { abortedFor, VsockError, type VsockErrorInit } from '../errors.js'

/** The two ends of a message socket, as far as they are known. */
export interface Ends {
  readonly local?: Address | undefined
  readonly remote?: Address | undefined
}

type Fields = Pick<VsockErrorInit, 'code' | 'what' | 'next' | 'retryable' | 'cause'>

export function socketError(op: 'send' | 'receive' | 'close', { local, remote }: Ends, fields: Fields): VsockError {
  return new VsockError({ op, local, remote, ...fields })
}

export function destroyedError(op: 'send' | 'receive' | 'close', ends: Ends): VsockError {
  return socketError(op, ends, { code: 'ABORTED', what: 'the socket was destroyed', next: 'It was destroyed by this process.' })
}

export function abortedError(op: 'send' | 'receive', ends: Ends, reason: unknown): VsockError {
  return socketError(op, ends, abortedFor(reason))
}

export function endedError(ends: Ends): VsockError {
  return socketError('send', ends, { code: 'EPIPE', what: 'end() was called before', next: 'Send before end().' })
}

/** A message that this side's buffer has no room for. */
export function tooLongError(ends: Ends, length: number, max: number): VsockError {
  const next =
    ends.remote?.transport === 'vsock' || ends.local?.transport === 'vsock'
      ? 'Send shorter messages, or raise vsock.bufferSize at both ends.'
      : 'Send shorter messages, or raise net.core.wmem_max.'
  return socketError('send', ends, {
    code: 'EMSGSIZE',
    what: `the message has ${length} bytes, more than the ${max} that one may have`,
    next,
  })
}

export function cutError(ends: Ends, kept: number, length: number): VsockError {
  const next = 'Raise maxReceiveBytes, or call receive(), which tells how long a message was.'
  return socketError('receive', ends, { code: 'EMSGSIZE', what: `a message of ${length} bytes was cut to ${kept}`, next })
}

const WORDS: Readonly<Record<string, readonly [what: string, next: string]>> = {
  EPIPE: ['the peer takes no more messages', 'Its connection is closed, or it has shut its reading side down.'],
  ECONNRESET: ['the peer has closed the connection before everything was read', 'Messages may be lost. Connect again.'],
  ENOTCONN: ['the peer has closed the connection', 'Connect again.'],
  ETIMEDOUT: ['the peer does not answer any more', 'Look whether it still runs. Connect again.'],
  EMSGSIZE: [
    "the message is longer than the peer's buffer",
    "Send shorter messages, or raise the buffer of the peer's socket (vsock.bufferSize).",
  ],
  ENOBUFS: ['the kernel has no memory for the message', 'Send it again later, or send shorter messages.'],
  ENOMEM: ['the kernel has no memory for the message', 'Send it again later, or send shorter messages.'],
}

/** What the kernel said to sendmsg or recvmsg. */
export function kernelError(op: 'send' | 'receive', ends: Ends, code: string, cause?: unknown): VsockError {
  const [what, next] = WORDS[code] ?? ['the kernel refused it', 'See the cause.']
  const retryable = code === 'ENOBUFS' || code === 'ENOMEM'
  return socketError(op, ends, { code, what: `${what} (${code})`, next, retryable, cause })
}
