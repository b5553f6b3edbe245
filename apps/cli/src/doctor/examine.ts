import { textOf } from '@upcall/foundation/error'
import { type Finding, failure, lacking } from './finding.js'

export interface Limits {
  /** Ends the check: its findings are then not waited for. */
  signal: AbortSignal
  timeoutMs: number
  /** A check that does not answer is a failure. Default false: a warning. */
  needed?: boolean
  /** Default `AbortSignal.timeout`; a test passes its own. */
  deadline?: (ms: number) => AbortSignal
}

/** Runs one check with a deadline. A check that does not answer, or fails itself, is a finding like any other. */
export async function examine(
  name: string,
  check: (signal: AbortSignal) => Promise<Finding | Finding[]>,
  { signal: outer, timeoutMs, needed = false, deadline = AbortSignal.timeout }: Limits,
): Promise<Finding[]> {
  const done = new AbortController()
  const limit = deadline(timeoutMs)
  const signal = AbortSignal.any([outer, limit, done.signal])
  let tooLate = () => {}
  const late = new Promise<Finding[]>((resolve) => {
    tooLate = () =>
      resolve(limit.aborted ? [lacking(needed, name, `no answer within ${timeoutMs} ms`, 'Allow more time with --timeout.')] : [])
  })
  if (signal.aborted) tooLate()
  signal.addEventListener('abort', tooLate, { once: true })
  try {
    return await Promise.race([check(signal).then((findings) => [findings].flat()), late])
  } catch (error) {
    return [failure(name, `the check itself failed: ${textOf(error)}`, 'Please report it as a mistake in upcall.')]
  } finally {
    signal.removeEventListener('abort', tooLate)
    // What the check has left open is closed.
    done.abort()
  }
}
