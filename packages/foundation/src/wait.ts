import { onAbort } from './abort.js'
import { type Clock, setLongTimer } from './clock.js'

/** The bounds of one wait, and the errors that end it. */
export interface Bounds {
  /** Infinity: no limit. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
  readonly clock: Clock
  /** The error of a wait that took too long. */
  readonly late: () => Error
  /** The error of a wait that the caller gave up; its cause is to be the signal's reason. */
  readonly aborted: (reason: unknown) => Error
}

/**
 * A promise that settles within its time or on abort, whichever comes first, and leaves no timer or listener.
 * `start` may return a function that withdraws the wait; it is called once, when the promise settles, in whatever way it does.
 */
export function bounded<T>(
  { timeoutMs, signal, clock, late, aborted }: Bounds,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => (() => void) | undefined,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(signal.reason))
    let settled = false
    let withdraw: (() => void) | undefined
    const settle = (how: () => void) => {
      if (settled) return
      settled = true
      cancelTimer()
      unlisten()
      try {
        withdraw?.()
        how()
      } catch (error) {
        // Thrown to a timer or a signal it would leave the promise unsettled.
        reject(error)
      }
    }
    const cancelTimer = setLongTimer(clock, timeoutMs, () => settle(() => reject(late())))
    const unlisten = onAbort(signal, (reason) => settle(() => reject(aborted(reason))))
    try {
      withdraw = start(
        (value) => settle(() => resolve(value)),
        (error) => settle(() => reject(error)),
      )
    } catch (error) {
      settle(() => reject(error))
    }
    if (settled) withdraw?.()
  })
}
