import { onAbort } from '@upcall/foundation/abort'
import { type Backoff, backoffDelay } from '@upcall/foundation/backoff'
import {
  checkClock,
  checkObject,
  checkOptionalFunction,
  checkSignal,
  duration,
  finiteDuration,
  wrongValue,
} from '@upcall/foundation/check'
import { type Clock, setLongTimer, systemClock } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import { type Address, Cid, formatAddress, PORT_ANY, toAddress } from './address.js'
import { dial } from './dial.js'
import { abortedError, isVsockError, VsockError } from './errors.js'
import { explain } from './native/errno.js'
import type { VsockConnectOptions } from './native/options.js'
import type { VsockSocket } from './socket.js'
import { trace } from './trace.js'

/** Overall deadline of a `connect` without retry. */
export const DEFAULT_TIMEOUT_MS = 5_000
/** Overall deadline of a `connect` with retry. */
export const DEFAULT_RETRY_BUDGET_MS = 30_000

export interface RetryOptions {
  /** Shortest delay between two attempts; the ceiling doubles from here. Default 10 ms. */
  minDelayMs?: number | undefined
  /** Longest delay between two attempts. Default 1000 ms. */
  maxDelayMs?: number | undefined
  /** How long to keep trying, Infinity for no limit. Default: `timeoutMs`, or 30 s; the shorter one counts. */
  budgetMs?: number | undefined
  /**
   * Deadline of each attempt, the handshake included. Default 2000 ms: Firecracker, Cloud Hypervisor and Dragonball forget a request
   * after that time.
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
 * Connects to an address and resolves with a socket after any handshake.
 *
 * @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an option that is wrong, or for the CID
 *   or the port `any`.
 * @throws {VsockError} `retryable` for a missing or unattended socket (ENOENT, ECONNREFUSED), EOF or ECONNRESET in place of the
 * VMM's reply (all code `ECONNREFUSED`) and a deadline that has passed (`ETIMEDOUT`); not for EACCES or a malformed reply (`EPROTO`).
 * With `retry`, the error of a connect that gave up says `attempts` and `elapsedMs`, and its `cause` is the error of the last attempt.
 */
export async function connect(address: Address | string, options: ConnectOptions = {}): Promise<VsockSocket> {
  const remote = toAddress(address)
  checkDestination(remote)
  const { timeoutMs, retry } = planOf(options)
  const { signal, clock = systemClock } = options
  const started = clock.now()

  for (let attempts = 1; ; attempts++) {
    const left = timeoutMs - (clock.now() - started)
    let delayMs: number | undefined
    try {
      const socket = await attempt(remote, options, Math.max(1, Math.min(left, retry?.attemptTimeoutMs ?? left)), clock)
      trace({ type: 'connected', remote, attempts }, 'connect %s: connected, attempt %d', formatAddress(remote), attempts)
      return socket
    } catch (error) {
      const elapsedMs = clock.now() - started
      const again = retry !== undefined && isVsockError(error) && error.retryable
      // A delay that would eat the whole rest is cut so that a last attempt still has a moment.
      if (again) delayMs = Math.min(backoffDelay(retry, attempts), timeoutMs - elapsedMs - retry.minDelayMs)
      if (delayMs !== undefined && delayMs <= 0) delayMs = undefined
      tellFailure(remote, attempts, error, delayMs)
      if (!again) throw error
      if (delayMs === undefined) throw gaveUp(remote, attempts, elapsedMs, error)
    }
    await sleep(delayMs, remote, signal, clock)
  }
}

/**
 * `any` is a CID or a port to listen on. The kernel does not refuse to connect to it: the attempt would wait for its whole time limit.
 *
 * @throws {RangeError}
 */
function checkDestination(remote: Address): void {
  if (remote.transport === 'vsock' && (remote.cid === Cid.any || remote.port === PORT_ANY))
    wrongValue('address', 'one CID and one port, not any', formatAddress(remote))
}

interface Plan {
  readonly timeoutMs: number
  readonly retry: (Backoff & { readonly attemptTimeoutMs: number }) | undefined
}

/** @throws {RangeError} or {TypeError} for an option that is wrong. */
export function planOf(options: ConnectOptions): Plan {
  checkObject('options', options)
  const { signal, clock, timeoutMs, retry } = options
  checkSignal(signal)
  if (clock !== undefined) checkClock(clock)
  duration('lingerMs', options.lingerMs, 1)
  if (retry === undefined || retry === false)
    return { timeoutMs: duration('timeoutMs', timeoutMs, DEFAULT_TIMEOUT_MS), retry: undefined }
  // A number, say, would otherwise be an object without any of the options.
  if (retry !== true) checkObject('retry', retry, 'true, false or an object')
  const given = retry === true ? {} : retry
  checkOptionalFunction('retry.random', given.random)
  const minDelayMs = finiteDuration('retry.minDelayMs', given.minDelayMs, 10)
  const maxDelayMs = finiteDuration('retry.maxDelayMs', given.maxDelayMs, Math.max(1_000, minDelayMs))
  if (maxDelayMs < minDelayMs) wrongValue('retry.maxDelayMs', `at least retry.minDelayMs (${minDelayMs})`, maxDelayMs)
  return {
    timeoutMs: Math.min(
      duration('retry.budgetMs', given.budgetMs, timeoutMs ?? DEFAULT_RETRY_BUDGET_MS),
      duration('timeoutMs', timeoutMs, given.budgetMs ?? DEFAULT_RETRY_BUDGET_MS),
    ),
    retry: {
      minDelayMs,
      maxDelayMs,
      attemptTimeoutMs: duration('retry.attemptTimeoutMs', given.attemptTimeoutMs, 2_000),
      random: given.random ?? Math.random,
    },
  }
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

/** Puts the caller's signal and the deadline into one signal, so that a transport has one thing to obey. */
async function attempt(remote: Address, options: ConnectOptions, timeoutMs: number, clock: Clock): Promise<VsockSocket> {
  const { signal, lingerMs, vsock } = options
  if (signal?.aborted) throw abortedError('connect', remote, signal.reason)
  const halfClose = options.halfClose ?? remote.transport !== 'hvsock'
  const stop = new AbortController()
  const cancel = setLongTimer(clock, timeoutMs, () => stop.abort(timedOut(remote, timeoutMs)))
  const unlisten = onAbort(signal, (reason) => stop.abort(abortedError('connect', remote, reason)))
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
    const cancel = setLongTimer(clock, ms, () => {
      unlisten()
      resolve()
    })
    const unlisten = onAbort(signal, (reason) => {
      cancel()
      reject(abortedError('connect', remote, reason))
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
