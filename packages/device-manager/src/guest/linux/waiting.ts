import { onAbort } from '@upcall/foundation/abort'
import type { Clock } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import { traceOf } from '@upcall/foundation/trace'
import { bounded } from '@upcall/foundation/wait'
import { LinuxGuestError } from './error.js'

const trace = traceOf('device-manager')

const FIRST_PAUSE_MS = 5
const LONGEST_PAUSE_MS = 100

/** Waits of one back end: on its clock, and only until its owner's signal aborts. All reject with `ABORTED` then. */
export class Waiting {
  readonly #op: string
  readonly #clock: Clock
  readonly #signal: AbortSignal | undefined

  constructor(op: string, clock: Clock, signal: AbortSignal | undefined) {
    this.#op = op
    this.#clock = clock
    this.#signal = signal
  }

  now(): number {
    return this.#clock.now()
  }

  /** @throws LinuxGuestError `ABORTED` if the owner wants nothing more to begin. */
  check(): void {
    if (this.#signal?.aborted) throw this.#aborted(this.#signal.reason)
  }

  /** Looks repeatedly until there is something to see, or until `deadline`; then undefined. sysfs does not report what appears. */
  async until<T>(deadline: number, look: () => Promise<T | undefined>): Promise<T | undefined> {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
      const seen = await look()
      const left = deadline - this.now()
      if (seen !== undefined || left <= 0) return seen
      await this.#pause(Math.min(pause, left))
    }
  }

  /** The promise's own outcome, or `TIMEOUT` after `timeoutMs`. */
  within<T>(timeoutMs: number, subject: string, promise: Promise<T>): Promise<T> {
    const late = () => overdue(this.#op, subject, `it takes longer than ${timeoutMs} ms`)
    const aborted = (reason: unknown) => this.#aborted(reason)
    return bounded<T>({ timeoutMs, clock: this.#clock, signal: this.#signal, late, aborted }, (resolve, reject) => {
      promise.then(resolve, reject)
      return undefined
    })
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.check()
      const cancel = this.#clock.setTimer(ms, () => {
        unlisten()
        resolve()
      })
      const unlisten = onAbort(this.#signal, (reason) => {
        cancel()
        reject(this.#aborted(reason))
      })
    })
  }

  #aborted(cause: unknown): LinuxGuestError {
    return new LinuxGuestError({ code: 'ABORTED', op: this.#op, subject: '', what: 'the caller has aborted it', cause })
  }
}

function overdue(op: string, subject: string, what: string): LinuxGuestError {
  const next = 'The kernel goes on with it. Look at the guest before you repeat it.'
  return new LinuxGuestError({ code: 'TIMEOUT', op, subject, what, next })
}

/** One operation at a time, in the order of the calls, as under one of the kernel's locks. */
export class Turns {
  readonly #waiting: Waiting
  readonly #timeoutMs: number
  #last: Promise<unknown> = Promise.resolve()

  constructor(waiting: Waiting, operationTimeoutMs: number) {
    this.#waiting = waiting
    this.#timeoutMs = operationTimeoutMs
  }

  /**
   * Rejects with `TIMEOUT` after `operationTimeoutMs`, which includes the wait for its turn. An operation that hangs in the kernel keeps its
   * turn until it returns.
   */
  run<T>(subject: string, operation: () => Promise<T>): Promise<T> {
    const deadline = this.#waiting.now() + this.#timeoutMs
    const turn = this.#last.then(() => {
      this.#waiting.check()
      if (this.#waiting.now() >= deadline) throw overdue('linuxGuest', subject, 'its turn came too late')
      return operation()
    })
    turn.then(
      (result) => trace({ type: 'operation', request: subject, result }, '%s: %o', subject, result),
      (error) => trace({ type: 'failure', request: subject, error }, '%s failed: %s', subject, textOf(error)),
    )
    this.#last = turn.catch(() => {})
    return this.#waiting.within(this.#timeoutMs, subject, turn)
  }
}
