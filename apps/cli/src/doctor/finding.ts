/** `ok`: works. `warning`: something is missing that only some uses need. `failure`: what was asked for cannot work. */
export type Verdict = 'ok' | 'warning' | 'failure'

export interface Finding {
  /** What was looked at: `node`, `qemu`, … */
  check: string
  verdict: Verdict
  what: string
  /** The one thing to do about it. */
  next?: string
}

export function ok(check: string, what: string): Finding {
  return { check, verdict: 'ok', what }
}

export function warning(check: string, what: string, next: string): Finding {
  return { check, verdict: 'warning', what, next }
}

export function failure(check: string, what: string, next: string): Finding {
  return { check, verdict: 'failure', what, next }
}

/** A failure if the command cannot do without it, otherwise a warning. */
export function lacking(needed: boolean, check: string, what: string, next: string): Finding {
  return { check, verdict: needed ? 'failure' : 'warning', what, next }
}
