// The libraries' errors end with a next step for a programmer: "call reconnect()", "pass retry". Here they get one for whoever
// stands at the shell.

import type { UpcallError } from '@upcall/client'
import { isUpcallError } from '@upcall/client'
import type { GuestError } from '@upcall/device-manager'
import { fieldsOf, messageOf } from '@upcall/foundation/error'
import { type Address, formatAddress, isVsockError, type VsockError } from '@upcall/vsock'
import { UPCALL_PORT } from '@upcall/wire'

/** How a next step names `upcall wait`; empty for those who are waiting already. */
type Wait = (clause: string) => string

export interface Situation {
  /** Whom it was about. */
  target?: Address | undefined
  /** Whether this is `upcall wait` itself. Default false. */
  waiting?: boolean | undefined
}

/** The error's message, with what lies at its root if that says more, and a next step that can be taken from a shell. */
export function explain(error: UpcallError, subject: string, { target, waiting = false }: Situation = {}): string {
  const root = rootOf(error)
  const wait: Wait = (clause) => (waiting ? '' : clause)
  if (error.outcome === 'not-sent') {
    if (root !== undefined) return `${subject}: ${whatOf(root)}; ${nextOf(root, wait, target)}`
    if (error.code === 'TIMEOUT')
      return `${about(subject, whatOf(error))}; nothing was sent: allow more with --timeout${wait(', or let `upcall wait` keep trying')}`
    if (error.code === 'ABORTED') return `${about(subject, whatOf(error))}; nothing was sent`
    return error.message
  }
  const cause = error.cause instanceof Error && error.code !== 'ABORTED' ? ` (${error.cause.message})` : ''
  return `${whatOf(error)}${cause}; ${error.next}`
}

/** Requests name themselves; the wait for a client that is ready does not know for which command that is. */
function about(subject: string, what: string): string {
  return what.startsWith(subject) ? what : `${subject}: ${what}`
}

/** The last error of ours in the chain of causes, if it is not the error itself. */
function rootOf(error: UpcallError): UpcallError | VsockError | undefined {
  if (error.code === 'ABORTED' || error.code === 'CLOSED') return undefined
  let root: UpcallError | VsockError | undefined
  let { cause } = error
  while (isUpcallError(cause) || isVsockError(cause)) {
    root = cause
    cause = cause.cause
  }
  return root
}

/** What the guest said, and whether it may have been asked in another architecture's words. */
export function explainRefusal({ message, operation, errno }: GuestError): string {
  return 'count' in operation && errno === -22 ? `${message}: then pass --arch x86_64` : message
}

function nextOf(root: UpcallError | VsockError, wait: Wait, target: Address | undefined): string {
  if (isVsockError(root)) {
    switch (root.code) {
      case 'ECONNREFUSED':
        return refusedNext(root, wait)
      case 'ETIMEDOUT':
        return `is the guest running, and not paused? Allow more with --timeout${wait(', or let `upcall wait` keep trying')}`
      default:
        return fieldsOf(root)?.next ?? root.message.slice(whatOf(root).length + 2)
    }
  }
  switch (root.code) {
    case 'DISCONNECTED':
      return `is the guest still booting, or has it no upcall service there?${hybridHint(target)}${wait(' `upcall wait` keeps trying')}`
    case 'PROTOCOL':
      return 'is this the port of the upcall server (219 unless the guest was told otherwise)?'
    default:
      return `is the guest running?${wait(' `upcall wait` keeps trying')}`
  }
}

/** A VMM's socket wants a CONNECT first, and closes on anything else. */
function hybridHint(target: Address | undefined): string {
  if (target?.transport !== 'unix') return ''
  return ` If this is a VMM's hybrid vsock socket, write ${formatAddress({ transport: 'hvsock', path: target.path, port: UPCALL_PORT })};`
}

/** A refusal has several makers, and each has its own remedy. */
function refusedNext({ cause }: VsockError, wait: Wait): string {
  const errno = (cause as NodeJS.ErrnoException | undefined)?.code
  if (errno === 'ENOENT')
    return `is this the path of the VMM's socket, and is the VMM running?${wait(' `upcall wait` waits for it')}`
  if (errno === 'ECONNREFUSED')
    return `the VMM that made this file is gone: start it again${wait('; `upcall wait` waits for it')}`
  if (errno === 'EAGAIN') return 'the VMM does not take connections: is it stuck?'
  return `is the guest still booting${wait(' (`upcall wait` keeps trying)')}, and was its kernel built with upcall?`
}

/** The message without the next step. */
export function whatOf(error: Error): string {
  const fields = fieldsOf(error)
  if (fields !== undefined) return messageOf({ ...fields, next: undefined })
  const { message } = error
  const end = message.lastIndexOf('; ')
  return end < 0 ? message : message.slice(0, end)
}
