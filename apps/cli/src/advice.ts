// The libraries' errors advise a programmer: "call reconnect()", "pass retry". Here they advise a person at a shell.

import type { UpcallError } from '@upcall/client'
import { isUpcallError } from '@upcall/client'
import type { GuestError } from '@upcall/device-manager'
import { errnoOf } from '@upcall/foundation/error'
import { type Address, formatAddress, isVsockError, type VsockError } from '@upcall/vsock'
import { UPCALL_PORT } from '@upcall/wire'
import { type ErrorReport, errorReport } from './errors.js'

/** Mentions `upcall wait`; empty for those who are waiting already. */
type Wait = (text: string) => string

export interface Situation {
  /** The guest's address. */
  target?: Address | undefined
  /** This is `upcall wait` itself. Default false. */
  waiting?: boolean | undefined
  /** How many connections were tried before it gave up, if more than one. */
  attempts?: number | undefined
}

/** The error for a person: with what lies at its root, if that says more, and a next step that can be taken from a shell. */
export function explain(error: UpcallError, request: string, situation: Situation = {}): ErrorReport {
  const { target, waiting = false, attempts } = situation
  const wait: Wait = (text) => (waiting ? '' : text)
  const gaveUp = (what: string) => (attempts === undefined ? what : `${what}; gave up after ${attempts} attempts`)
  const { code, outcome, subject, what } = error
  const own = { code, op: request, subject, what: gaveUp(what) }
  // After it was sent, the cause says nothing of the request; the interruption of this command does.
  const { cause } = error
  const interrupted = code === 'ABORTED' ? { cause } : {}
  if (outcome !== 'not-sent') return errorReport({ ...own, ...interrupted, next: error.next })
  const root = rootOf(error)
  if (root !== undefined) {
    const { op, subject } = root
    return errorReport({ code, op, subject, what: gaveUp(root.what), next: nextOf(root, wait, target), cause }, request)
  }
  switch (code) {
    case 'TIMEOUT': {
      const next = `Nothing was sent. Allow more time with --timeout${wait(', or let `upcall wait` keep trying')}.`
      return errorReport({ ...own, next })
    }
    case 'ABORTED':
      return errorReport({ ...own, ...interrupted, next: 'Nothing was sent.' })
    default:
      return errorReport({ ...own, next: error.next })
  }
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

/** What the guest said, and what to do if it was asked in the words of another architecture. */
export function explainRefusal({ code, op, subject, what, next, operation, errno }: GuestError): ErrorReport {
  const arch = 'count' in operation && errno === -22 ? ' If the guest is x86_64, pass --arch x86_64.' : ''
  return errorReport({ code, op, subject, what, next: `${next ?? ''}${arch}` })
}

function nextOf(root: UpcallError | VsockError, wait: Wait, target: Address | undefined): string | undefined {
  if (isVsockError(root)) {
    switch (root.code) {
      case 'ECONNREFUSED':
        return refusedNext(root, wait)
      case 'ETIMEDOUT':
        return `Is the guest running, and not paused? Allow more time with --timeout${wait(', or let `upcall wait` keep trying')}.`
      default:
        return root.next
    }
  }
  switch (root.code) {
    case 'DISCONNECTED':
      return `Is the guest still booting, or does it have no upcall service on this port?${hybridHint(target)}${wait(' `upcall wait` keeps trying.')}`
    case 'PROTOCOL':
      return 'Check the port: the upcall server listens on 219 by default.'
    default:
      return `Is the guest running?${wait(' `upcall wait` keeps trying.')}`
  }
}

/** A VMM's socket expects a CONNECT first, and closes on anything else. */
function hybridHint(target: Address | undefined): string {
  if (target?.transport !== 'unix') return ''
  return ` If this is a VMM's hybrid vsock socket, write ${formatAddress({ transport: 'hvsock', path: target.path, port: UPCALL_PORT })}.`
}

/** A refusal has several causes, and each has its own remedy. */
function refusedNext({ cause }: VsockError, wait: Wait): string {
  switch (errnoOf(cause)) {
    case 'ENOENT':
      return `Is this the path of the VMM's socket, and is the VMM running?${wait(' `upcall wait` waits for it.')}`
    case 'ECONNREFUSED':
      return `The VMM that made this file is gone: start it again.${wait(' `upcall wait` waits for it.')}`
    case 'EAGAIN':
      return 'The VMM does not accept connections. Is it stuck?'
    default:
      return `Is the guest still booting, and was its kernel built with upcall?${wait(' `upcall wait` keeps trying.')}`
  }
}
