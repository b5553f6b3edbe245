import { abortedFor, VsockError } from '../errors.js'
import { type BootVerdict, type GuestBoot, shown } from './boot.js'

const op = 'ready'

/** The guest's boot has ended, and not well. */
export function badBootError(subject: string, verdict: Extract<BootVerdict, { what: string }>, heard: GuestBoot): VsockError {
  const code = verdict.kind === 'failed' ? 'GUEST_FAILED' : 'GUEST_STOPPED'
  return new VsockError({
    code,
    op,
    subject,
    heard,
    what: verdict.what,
    next: 'Look at the console or the journal of the guest.',
  })
}

export function lateError(subject: string, timeoutMs: number, heard: GuestBoot | undefined): VsockError {
  const what = `no READY=1 within ${timeoutMs} ms; ${heard === undefined ? 'no message came' : lastWord(heard)}`
  const next =
    heard === undefined
      ? 'Check the credential vmm.notify_socket of the guest, and that its systemd is 254 or later.'
      : 'Allow more time, or look at the console of the guest.'
  return new VsockError({ code: 'ETIMEDOUT', op, subject, heard, retryable: true, what, next })
}

function lastWord({ messages, fields, units }: GuestBoot): string {
  const unit = units.at(-1)
  const said = [
    ...(fields.STATUS === undefined ? [] : [shown('STATUS', fields.STATUS)]),
    ...(unit === undefined ? [] : [shown('X_SYSTEMD_UNIT_ACTIVE', unit)]),
  ]
  return `${messages} ${messages === 1 ? 'message' : 'messages'} came${said.length === 0 ? '' : `, last ${said.join(' and ')}`}`
}

export function closedError(subject: string): VsockError {
  return new VsockError({ code: 'ECANCELED', op, subject, what: 'the receiver was closed', next: 'Wait before it is closed.' })
}

export function readyAborted(subject: string, reason: unknown): VsockError {
  return new VsockError({ ...abortedFor(reason), op, subject })
}
