import type { Outcome } from '@upcall/client'
import { Interrupted, OutputError } from './errors.js'

/** What the process ends with, and what of a guest's requests each of them means. */
export const Exit = {
  ok: 0,
  /** The guest refused. */
  guestError: 1,
  /** Wrong usage or invalid input: the mistake is on this side. */
  invalid: 2,
  /** Nothing was sent: safe to repeat. */
  notSent: 3,
  /** Sent, and never answered: the outcome is unknown. */
  indeterminate: 4,
  /** A mistake in upcall itself (EX_SOFTWARE of sysexits.h). */
  bug: 70,
} as const

export type Status = (typeof Exit)[keyof typeof Exit]

/** Of several failures, the first of these is the exit status: a script must not overlook it. */
const precedence: readonly Status[] = [Exit.bug, Exit.invalid, Exit.indeterminate, Exit.notSent, Exit.guestError, Exit.ok]

const outcomes: Record<Outcome | 'ok', Status> = {
  ok: Exit.ok,
  'guest-error': Exit.guestError,
  'not-sent': Exit.notSent,
  indeterminate: Exit.indeterminate,
}

export function statusOf(outcome: Outcome | 'ok'): Status {
  return outcomes[outcome]
}

/** Collects the statuses of a command's operations: the first in the order 2, 4, 3, 1, 0 stands. */
export class ExitStatus {
  #status: Status = Exit.ok
  /** What a program that `--exec` ran ended with: the command's own status, unless something else went wrong. */
  programStatus = 0
  /** SIGTERM is how this command is told that it is done, and no failure: it serves until then. */
  servesUntilTold = false

  get status(): number {
    return this.#status === Exit.ok ? this.programStatus : this.#status
  }

  add(status: Status): void {
    if (precedence.indexOf(status) < precedence.indexOf(this.#status)) this.#status = status
  }
}

const signalNumbers = { SIGINT: 2, SIGPIPE: 13, SIGTERM: 15 } as const

/** 130 for SIGINT, and for anything else that aborts; 143 for SIGTERM, 0 if that is how the command ends. */
export function interruptedStatus(reason: unknown, { servesUntilTold }: ExitStatus): number {
  if (servesUntilTold && reason instanceof Interrupted && reason.signal === 'SIGTERM') return Exit.ok
  if (reason instanceof OutputError) return Exit.indeterminate
  return 128 + signalNumbers[reason instanceof Interrupted ? reason.signal : 'SIGINT']
}
