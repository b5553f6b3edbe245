import { checkClock, checkSignal } from './check.js'
import { QemuError } from './errors.js'

/** Time as a parameter. Milliseconds, monotonic. */
export interface Clock {
  now(): number
  /** Calls `fn` once after `ms`, never if that is infinite; the returned function cancels it. */
  setTimer(ms: number, fn: () => void): () => void
}

// setTimeout fires at once beyond this, which is 24 days.
const LONGEST_TIMER_MS = 0x7fff_ffff

export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer(ms, fn) {
    if (ms > LONGEST_TIMER_MS) return () => {}
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  },
}

export interface Bounds {
  /** Gives up with code DEADLINE after so many milliseconds. */
  deadlineMs: number
  signal?: AbortSignal | undefined
  clock: Clock
  /** What is being waited for, for the message: `<what>: nothing after <n> ms`. */
  what: string
  /** The usual reason why it does not come, for that message. */
  hint?: string | undefined
  /** Console lines to put into the error, read when it is made. */
  tail?: (() => readonly string[]) | undefined
}

/** @throws QemuError unless it is a number: a timer takes all else for no time at all. Nothing and less is what is left when time is up. */
export function checkDeadline(what: string, deadlineMs: number): void {
  if (typeof deadlineMs !== 'number' || Number.isNaN(deadlineMs))
    throw new QemuError('INVALID_OPTION', `${what}: its deadline is ${String(deadlineMs)}; allowed: milliseconds`)
}

/**
 * A promise that settles within its deadline or on abort, whatever comes first, and leaves no timer or listener behind.
 * `start` may return a function that withdraws the wait.
 */
export function bounded<T>(
  { deadlineMs, signal, clock, what, hint, tail }: Bounds,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => (() => void) | undefined,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    checkDeadline(what, deadlineMs)
    checkSignal(what, signal)
    checkClock(what, clock)
    if (signal?.aborted) return reject(abortedError(what, signal, tail?.()))
    let settled = false
    let withdraw: (() => void) | undefined
    const settle = (how: () => void) => {
      if (settled) return
      settled = true
      cancelTimer()
      signal?.removeEventListener('abort', onAbort)
      withdraw?.()
      how()
    }
    const onAbort = () => settle(() => reject(abortedError(what, signal!, tail?.())))
    const onDeadline = () => {
      const late = `${what}: nothing after ${Math.round(deadlineMs)} ms${hint === undefined ? '' : `; ${hint}`}`
      settle(() => reject(new QemuError('DEADLINE', late, { console: tail?.() })))
    }
    const cancelTimer = clock.setTimer(deadlineMs, onDeadline)
    signal?.addEventListener('abort', onAbort, { once: true })
    withdraw = start(
      (value) => settle(() => resolve(value)),
      (error) => settle(() => reject(error)),
    )
    if (settled) withdraw?.()
  })
}

export function abortedError(what: string, signal: AbortSignal, console?: readonly string[]): QemuError {
  return new QemuError('ABORTED', `${what}: aborted`, { cause: signal.reason, console })
}
