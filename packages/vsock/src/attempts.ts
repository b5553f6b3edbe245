import { onAbort } from '@upcall/foundation/abort'
import { backoffDelay } from '@upcall/foundation/backoff'
import { callBack } from '@upcall/foundation/callback'
import { setLongTimer } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import { type Address, formatAddress } from './address.js'
import { dial } from './dial.js'
import { isVsockError, VsockError } from './errors.js'
import type { Dialled } from './handle.js'
import type { Life } from './life.js'
import { explain } from './native/errno.js'
import type { VsockConnectOptions } from './native/options.js'
import type { Plan, Retry } from './plan.js'
import { trace } from './trace.js'

/** One attempt. It rejects with the signal's reason when that aborts, within `timeoutMs` at the latest. */
export type Attempt<T> = (options: { signal: AbortSignal; timeoutMs: number; life: Life }) => Promise<T>

export interface AttemptsOptions {
  /** Ends the attempts, which reject with the signal's reason: a finished error. */
  readonly signal: AbortSignal
  readonly life: Life
  readonly onRetry: ((retry: Retry) => void) | undefined
}

export async function dialUntil(
  remote: Address,
  plan: Plan,
  { vsock, ...options }: AttemptsOptions & { readonly vsock: VsockConnectOptions | undefined },
): Promise<Dialled> {
  return repeat('connect', remote, plan, options, (attempt) => dial(remote, { ...attempt, vsock }))
}

/** Attempt after attempt, until one succeeds, one fails for good, or the time is over. */
export async function repeat<T>(
  op: Operation,
  remote: Address,
  { timeoutMs, retry }: Plan,
  options: AttemptsOptions,
  attempt: Attempt<T>,
): Promise<T> {
  const { signal, life, onRetry } = options
  const started = life.now()

  for (let attempts = 1; ; attempts++) {
    const left = timeoutMs - (life.now() - started)
    let delayMs: number | undefined
    try {
      const limitMs = Math.max(1, Math.min(left, retry?.attemptTimeoutMs ?? left))
      const result = await limited(attempt, options, limitMs, () => timedOut(op, remote, limitMs))
      const done = op === 'connect' ? 'connected' : 'passed'
      trace({ type: done, remote, attempts }, '%s %s: %s, attempt %d', op, formatAddress(remote), done, attempts)
      return result
    } catch (error) {
      const elapsedMs = life.now() - started
      const again = retry !== undefined && !signal.aborted && isVsockError(error) && error.retryable
      // A delay that would eat the whole rest is cut so that a last attempt still has a moment.
      if (again) delayMs = Math.min(backoffDelay(retry, attempts), timeoutMs - elapsedMs - retry.minDelayMs)
      if (delayMs !== undefined && delayMs <= 0) delayMs = undefined
      tellFailure(op, remote, attempts, error, delayMs)
      if (!again) throw error
      if (delayMs === undefined) throw gaveUp(op, remote, attempts, elapsedMs, error)
      callBack(onRetry, { error, attempts, delayMs })
    }
    await sleep(delayMs, signal, life)
  }
}

/** Puts the signal and the deadline into one signal, so that a transport has one thing to obey. */
async function limited<T>(
  attempt: Attempt<T>,
  { signal, life }: AttemptsOptions,
  timeoutMs: number,
  timedOut: () => VsockError,
): Promise<T> {
  const stop = new AbortController()
  const cancel = setLongTimer(life, timeoutMs, () => stop.abort(timedOut()))
  const unlisten = onAbort(signal, (reason) => stop.abort(reason))
  if (signal.aborted) stop.abort(signal.reason)
  try {
    return await attempt({ signal: stop.signal, timeoutMs, life })
  } finally {
    cancel()
    unlisten()
  }
}

function sleep(ms: number, signal: AbortSignal, life: Life): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const cancel = setLongTimer(life, ms, () => {
      unlisten()
      resolve()
    })
    const unlisten = onAbort(signal, (reason) => {
      cancel()
      reject(reason)
    })
  })
}

type Operation = 'connect' | 'pass'

function tellFailure(op: Operation, remote: Address, attempts: number, error: unknown, retryInMs: number | undefined): void {
  trace(
    { type: `${op}-failed`, remote, attempts, error, retryInMs },
    '%s %s: attempt %d failed: %s; %s',
    op,
    formatAddress(remote),
    attempts,
    textOf(error),
    retryInMs === undefined ? 'the last one' : `the next one in ${Math.round(retryInMs)} ms`,
  )
}

function timedOut(op: Operation, remote: Address, timeoutMs: number): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op,
    remote,
    retryable: true,
    what: `no answer within ${Math.round(timeoutMs)} ms`,
    next:
      remote.transport === 'vsock'
        ? explain('connect', 'ETIMEDOUT').next
        : 'Check that the guest has booted and is not paused, or allow more time with timeoutMs.',
  })
}

function gaveUp(op: Operation, remote: Address, attempts: number, elapsedMs: number, last: VsockError): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op,
    remote,
    retryable: true,
    cause: last,
    attempts,
    elapsedMs,
    what: `gave up after ${attempts} attempt${attempts === 1 ? '' : 's'} in ${Math.round(elapsedMs)} ms: ${last.what}`,
    next: 'Allow more time with timeoutMs. The cause is the error of the last attempt.',
  })
}
