import type { Clock } from '@upcall/server'

const FIRST_PAUSE_MS = 5
const LONGEST_PAUSE_MS = 100

/** Thrown where an operation outlives its deadline. What it has begun goes on in the kernel; how it ends, nobody knows. */
export class Overdue extends Error {
  override readonly name = 'Overdue'
}

/** Waits on a clock that tests turn, and only as long as the back end's owner wants. All reject with the signal's reason. */
export class Waiting {
  readonly #clock: Clock
  readonly #signal: AbortSignal | undefined
  /** What an abort ends. Together they listen to the signal once: Node takes more than ten listeners for a leak. */
  readonly #pending = new Set<() => void>()

  constructor(clock: Clock, signal: AbortSignal | undefined) {
    this.#clock = clock
    this.#signal = signal
  }

  now(): number {
    return this.#clock.now()
  }

  /** @throws the signal's reason if nothing more is to be begun. */
  check(): void {
    this.#signal?.throwIfAborted()
  }

  /** Looks again and again until there is something to see, or `deadline` has passed; then undefined. sysfs tells nobody what appears. */
  async until<T>(deadline: number, look: () => Promise<T | undefined>): Promise<T | undefined> {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
      const seen = await look()
      const left = deadline - this.now()
      if (seen !== undefined || left <= 0) return seen
      await this.#timed<void>(Math.min(pause, left), (resolve) => resolve())
    }
  }

  /** The promise's own outcome, or `Overdue` after `ms`. */
  within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
    const overdue = new Overdue(`${what}: no end after ${ms} ms`)
    return this.#timed<T>(ms, (_resolve, reject) => reject(overdue), promise)
  }

  #timed<T>(
    ms: number,
    onTime: (resolve: (value: T) => void, reject: (reason: unknown) => void) => void,
    promise?: Promise<T> | undefined,
  ): Promise<T> {
    const signal = this.#signal
    if (signal?.aborted) return Promise.reject(signal.reason)
    return new Promise<T>((resolve, reject) => {
      const done = () => {
        cancel()
        this.#pending.delete(onAbort)
        if (this.#pending.size === 0) signal?.removeEventListener('abort', this.#onAbort)
      }
      const onAbort = () => {
        done()
        reject(signal!.reason)
      }
      const cancel = this.#clock.setTimer(ms, () => {
        done()
        onTime(resolve, reject)
      })
      this.#pending.add(onAbort)
      signal?.addEventListener('abort', this.#onAbort, { once: true })
      promise?.finally(done).then(resolve, reject)
    })
  }

  // One function for all: adding it again adds nothing.
  readonly #onAbort = (): void => {
    for (const end of [...this.#pending]) end()
  }
}

/** One operation at a time, in the order of the calls, as under one of the kernel's locks. */
export class Turns {
  readonly #waiting: Waiting
  readonly #operationMs: number
  #last: Promise<unknown> = Promise.resolve()

  constructor(waiting: Waiting, operationMs: number) {
    this.#waiting = waiting
    this.#operationMs = operationMs
  }

  /** Rejects with `Overdue` after `operationMs`, its turn included. One that is stuck in the kernel keeps its turn until it comes back. */
  run<T>(what: string, operation: () => Promise<T>): Promise<T> {
    const deadline = this.#waiting.now() + this.#operationMs
    const turn = this.#last.then(() => {
      this.#waiting.check()
      if (this.#waiting.now() >= deadline) throw new Overdue(`${what}: its turn came too late`)
      return operation()
    })
    this.#last = turn.catch(() => {})
    return this.#waiting.within(this.#operationMs, what, turn)
  }
}
