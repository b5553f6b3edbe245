import { inspect } from 'node:util'
import { checkOptions, checkSignal, onAbort } from './abort.js'
import { type Address, toAddress } from './address.js'
import { type Clock, checkDuration, systemClock } from './clock.js'
import { dial } from './dial.js'
import { abortedError, isVsockError, VsockError } from './errors.js'
import { explain } from './native/errno.js'
import type { VsockConnectOptions } from './native/options.js'
import type { VsockSocket } from './socket.js'

/** Overall deadline of a `connect` without retry. */
export const DEFAULT_TIMEOUT_MS = 5_000
/** Overall deadline of a `connect` with retry. */
export const DEFAULT_RETRY_BUDGET_MS = 30_000

export interface RetryOptions {
  /** Shortest delay between two attempts; the ceiling doubles from here. Default 10 ms. */
  minDelayMs?: number | undefined
  /** Longest delay between two attempts. Default 1000 ms. */
  maxDelayMs?: number | undefined
  /** How long to keep trying. Default: `timeoutMs`, or 30 s; the shorter one counts. */
  budgetMs?: number | undefined
  /**
   * Deadline of each attempt, the handshake included. Default 2000 ms, after which Firecracker, Cloud Hypervisor and Dragonball
   * forget a request anyway.
   */
  attemptTimeoutMs?: number | undefined
  /** A number in [0, 1) for the jitter. Default `Math.random`. */
  random?: (() => number) | undefined
}

export interface ConnectOptions {
  /** Ends the connecting (not the connection): rejects with code `ABORTED`, `cause` the signal's reason. */
  signal?: AbortSignal | undefined
  /** Overall deadline, all attempts included. Default 5000 ms, with `retry` its budget. */
  timeoutMs?: number | undefined
  /** One attempt unless this is given; `true` for the defaults. Repeats only errors that are `retryable`. */
  retry?: boolean | RetryOptions | undefined
  /**
   * Whether EOF in one direction leaves the other one open on this transport. Default true for `unix` and `vsock`, false for
   * `hvsock`: Firecracker and Dragonball turn the host's EOF into a full shutdown. See `VsockSocket`.
   */
  halfClose?: boolean | undefined
  /** Silence granted to the peer after `end()` where `halfClose` is false. Default 5000 ms. */
  lingerMs?: number | undefined
  clock?: Clock | undefined
  /** For `vsock://` addresses only: buffer sizes, and `toHost` for sibling VMs. */
  vsock?: VsockConnectOptions | undefined
}

/**
 * Connects to an address and resolves with a socket that is past any handshake.
 *
 * @throws {AddressError} for an address that cannot be used; {RangeError} for a duration that cannot, {TypeError} for a `retry` or a `signal` that is none.
 * @throws {VsockError} `retryable` for a missing or unattended socket (ENOENT, ECONNREFUSED), EOF or ECONNRESET in place of the
 * VMM's reply (all code `ECONNREFUSED`) and a passed deadline (`ETIMEDOUT`); not for EACCES or a malformed reply (`EPROTO`).
 */
export async function connect(address: Address | string, options: ConnectOptions = {}): Promise<VsockSocket> {
  const remote = toAddress(address)
  checkOptions(options)
  const { signal, clock = systemClock } = options
  checkSignal(signal)
  if (options.lingerMs !== undefined) checkDuration('lingerMs', options.lingerMs)
  const retry = retryPlan(options)
  const timeoutMs = checkDuration('timeoutMs', retry?.budgetMs ?? options.timeoutMs ?? DEFAULT_TIMEOUT_MS)
  const started = clock.now()

  for (let attempts = 1; ; attempts++) {
    const left = timeoutMs - (clock.now() - started)
    try {
      return await attempt(remote, options, Math.max(1, Math.min(left, retry?.attemptTimeoutMs ?? left)), clock)
    } catch (error) {
      if (!retry || !isVsockError(error) || !error.retryable) throw error
      const rest = timeoutMs - (clock.now() - started)
      // A delay that would eat the whole rest is cut so that a last attempt still has a moment.
      const delayMs = Math.min(backoff(attempts, retry), rest - retry.minDelayMs)
      if (delayMs <= 0) throw gaveUp(remote, attempts, timeoutMs, error)
      await sleep(delayMs, remote, signal, clock)
    }
  }
}

interface RetryPlan {
  minDelayMs: number
  maxDelayMs: number
  budgetMs: number
  attemptTimeoutMs: number
  random: () => number
}

function retryPlan({ retry, timeoutMs }: ConnectOptions): RetryPlan | undefined {
  if (retry === undefined || retry === false) return undefined
  // A number, say, would otherwise be an object without any of the options.
  if (retry !== true && (typeof retry !== 'object' || retry === null || Array.isArray(retry)))
    throw new TypeError(
      `retry is ${inspect(retry)}; allowed are true, false and an object with budgetMs, attemptTimeoutMs, minDelayMs, maxDelayMs, random`,
    )
  const given = retry === true ? {} : retry
  const minDelayMs = checkDuration('retry.minDelayMs', given.minDelayMs ?? 10)
  return {
    minDelayMs,
    maxDelayMs: checkDuration('retry.maxDelayMs', given.maxDelayMs ?? Math.max(1_000, minDelayMs), minDelayMs),
    budgetMs: Math.min(
      checkDuration('retry.budgetMs', given.budgetMs ?? timeoutMs ?? DEFAULT_RETRY_BUDGET_MS),
      checkDuration('timeoutMs', timeoutMs ?? given.budgetMs ?? DEFAULT_RETRY_BUDGET_MS),
    ),
    attemptTimeoutMs: checkDuration('retry.attemptTimeoutMs', given.attemptTimeoutMs ?? 2_000),
    random: given.random ?? Math.random,
  }
}

/** Jitter over the whole of [minDelayMs, ceiling], the ceiling doubling with each attempt up to maxDelayMs. */
function backoff(attempts: number, { minDelayMs, maxDelayMs, random }: RetryPlan): number {
  const ceiling = Math.min(maxDelayMs, minDelayMs * 2 ** Math.min(attempts, 30))
  return minDelayMs + random() * (ceiling - minDelayMs)
}

/** Puts the caller's signal and the deadline into one signal, so that a transport has one thing to obey. */
async function attempt(remote: Address, options: ConnectOptions, timeoutMs: number, clock: Clock): Promise<VsockSocket> {
  const { signal, lingerMs, vsock } = options
  if (signal?.aborted) throw abortedError('connect', remote, signal.reason)
  const halfClose = options.halfClose ?? remote.transport !== 'hvsock'
  const stop = new AbortController()
  const cancel = clock.setTimer(timeoutMs, () => stop.abort(timedOut(remote, timeoutMs)))
  const unlisten = onAbort(signal, () => stop.abort(abortedError('connect', remote, signal?.reason)))
  try {
    return await dial(remote, { signal: stop.signal, timeoutMs, halfClose, lingerMs, clock, vsock })
  } finally {
    cancel()
    unlisten()
  }
}

function sleep(ms: number, remote: Address, signal: AbortSignal | undefined, clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortedError('connect', remote, signal.reason))
    const cancel = clock.setTimer(ms, () => {
      unlisten()
      resolve()
    })
    const unlisten = onAbort(signal, () => {
      cancel()
      reject(abortedError('connect', remote, signal?.reason))
    })
  })
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
        : 'check that the guest has booted and is not paused, or allow more time with timeoutMs',
  })
}

function gaveUp(remote: Address, attempts: number, budgetMs: number, last: VsockError): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'connect',
    remote,
    retryable: true,
    cause: last,
    what: `gave up after ${attempts} attempt${attempts === 1 ? '' : 's'} within ${Math.round(budgetMs)} ms, the last one: ${last.code}`,
    next: "the cause is the last attempt's error; allow more time with timeoutMs",
  })
}
