import type { Backoff } from '@upcall/foundation/backoff'
import {
  checkClock,
  checkObject,
  checkOptionalFunction,
  checkSignal,
  checkSwitch,
  duration,
  finiteDuration,
  wrongValue,
} from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { type Address, Cid, formatAddress, PORT_ANY } from './address.js'
import type { VsockError } from './errors.js'
import type { VsockConnectOptions } from './native/options.js'

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

/** An attempt that failed, and will be repeated. */
export interface Retry {
  /** Why it failed. */
  readonly error: VsockError
  /** How many attempts there have been, 1 or more. */
  readonly attempts: number
  /** When the next one begins. */
  readonly delayMs: number
}

export interface ConnectOptions {
  /** Ends the connecting (not the connection): rejects with code `ABORTED`, `cause` the signal's reason. */
  signal?: AbortSignal | undefined
  /**
   * As `net.connect` has it: whether the socket stays writable after its peer has ended. Default false: it sends what was written, ends,
   * and closes.
   */
  allowHalfOpen?: boolean | undefined
  /**
   * Overall deadline, all attempts included. Default 5000 ms, with `retry` its budget. Over AF_VSOCK it is the kernel's connect timeout, too,
   * and Linux keeps each socket in memory until that has passed, though it was closed long before (net/vmw_vsock/af_vsock.c,
   * `connect_work`): `Infinity` leaks in a program that connects often.
   */
  timeoutMs?: number | undefined
  /** One attempt unless this is given; `true` for the defaults. Repeats only errors that are `retryable`. */
  retry?: boolean | RetryOptions | undefined
  /** Called before each delay between two attempts. Not after the last attempt, and not after an abort. */
  onRetry?: ((retry: Retry) => void) | undefined
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
 * `any` is a CID or a port to listen on. The kernel does not refuse to connect to it: the attempt would wait for its whole time limit.
 *
 * @throws {RangeError}
 */
export function checkDestination(remote: Address): void {
  if (remote.transport === 'vsock' && (remote.cid === Cid.any || remote.port === PORT_ANY))
    wrongValue('address', 'one CID and one port, not any', formatAddress(remote))
}

/** How long and how often. */
export interface Plan {
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
  checkSwitch('allowHalfOpen', options.allowHalfOpen)
  checkSwitch('halfClose', options.halfClose)
  checkOptionalFunction('onRetry', options.onRetry)
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
