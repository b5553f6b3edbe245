import { onAbort } from '@upcall/foundation/abort'
import { backoffDelay } from '@upcall/foundation/backoff'
import { callBack } from '@upcall/foundation/callback'
import { setLongTimer } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import { type Address, formatAddress } from './address.js'
import { type Dialled, dial } from './dial.js'
import { isVsockError, VsockError } from './errors.js'
import type { Life } from './life.js'
import { explain } from './native/errno.js'
import type { VsockConnectOptions } from './native/options.js'
import type { Plan, Retry } from './plan.js'
import { trace } from './trace.js'

export interface AttemptsOptions {
  /** Ends the attempts, which reject with the signal's reason: a finished error. */
  readonly signal: AbortSignal
  readonly life: Life
  readonly onRetry: ((retry: Retry) => void) | undefined
  readonly vsock: VsockConnectOptions | undefined
}

/** Attempt after attempt, until one succeeds, one fails for good, or the time is over. */
export async function dialUntil(remote: Address, { timeoutMs, retry }: Plan, options: AttemptsOptions): Promise<Dialled> {
  const { signal, life, onRetry } = options
  const started = life.now()

  for (let attempts = 1; ; attempts++) {
    const left = timeoutMs - (life.now() - started)
    let delayMs: number | undefined
    try {
      const dialled = await attempt(remote, options, Math.max(1, Math.min(left, retry?.attemptTimeoutMs ?? left)))
      trace({ type: 'connected', remote, attempts }, 'connect %s: connected, attempt %d', formatAddress(remote), attempts)
      return dialled
    } catch (error) {
      const elapsedMs = life.now() - started
      const again = retry !== undefined && !signal.aborted && isVsockError(error) && error.retryable
      // A delay that would eat the whole rest is cut so that a last attempt still has a moment.
      if (again) delayMs = Math.min(backoffDelay(retry, attempts), timeoutMs - elapsedMs - retry.minDelayMs)
      if (delayMs !== undefined && delayMs <= 0) delayMs = undefined
      tellFailure(remote, attempts, error, delayMs)
      if (!again) throw error
      if (delayMs === undefined) throw gaveUp(remote, attempts, elapsedMs, error)
      callBack(onRetry, { error, attempts, delayMs })
    }
    await sleep(delayMs, signal, life)
  }
}

/** Puts the signal and the deadline into one signal, so that a transport has one thing to obey. */
async function attempt(remote: Address, { signal, life, vsock }: AttemptsOptions, timeoutMs: number): Promise<Dialled> {
  const stop = new AbortController()
  const cancel = setLongTimer(life, timeoutMs, () => stop.abort(timedOut(remote, timeoutMs)))
  const unlisten = onAbort(signal, (reason) => stop.abort(reason))
  if (signal.aborted) stop.abort(signal.reason)
  try {
    return await dial(remote, { signal: stop.signal, timeoutMs, life, vsock })
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

function tellFailure(remote: Address, attempts: number, error: unknown, retryInMs: number | undefined): void {
  trace(
    { type: 'connect-failed', remote, attempts, error, retryInMs },
    'connect %s: attempt %d failed: %s; %s',
    formatAddress(remote),
    attempts,
    textOf(error),
    retryInMs === undefined ? 'the last one' : `the next one in ${Math.round(retryInMs)} ms`,
  )
}

function timedOut(remote: Address, timeoutMs: number): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'connect',
    remote,
    retryable: true,
    what: `no answer within ${Math.round(timeoutMs)} ms`,
    next:
      remote.transport === 'vsock'
        ? explain('connect', 'ETIMEDOUT').next
        : 'Check that the guest has booted and is not paused, or allow more time with timeoutMs.',
  })
}

function gaveUp(remote: Address, attempts: number, elapsedMs: number, last: VsockError): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'connect',
    remote,
    retryable: true,
    cause: last,
    attempts,
    elapsedMs,
    what: `gave up after ${attempts} attempt${attempts === 1 ? '' : 's'} in ${Math.round(elapsedMs)} ms: ${last.what}`,
    next: 'Allow more time with timeoutMs. The cause is the error of the last attempt.',
  })
}
