const FIRST_MS = 10
const LAST_MS = 1_000

/** Calls `fn` once after `ms`, unless the returned function is called first. */
export type Sleep = (ms: number, fn: () => void) => () => void

/**
 * How long a listener leaves its backlog alone for want of descriptors or memory: readiness is level-triggered, so watching on would spin.
 * Each pause is twice as long as the last one, up to a second, until a connection is taken.
 */
export class AcceptPause {
  readonly #sleep: Sleep
  #nextMs = FIRST_MS
  #cancel: () => void = () => {}

  constructor(sleep: Sleep) {
    this.#sleep = sleep
  }

  /** Calls `resume` when it is over, and returns how many milliseconds that will be. */
  begin(resume: () => void): number {
    const ms = this.#nextMs
    this.#nextMs = Math.min(2 * ms, LAST_MS)
    this.#cancel = this.#sleep(ms, resume)
    return ms
  }

  /** A connection was taken: the next pause is the shortest again. */
  reset(): void {
    this.#nextMs = FIRST_MS
  }

  /** No `resume` comes any more. */
  cancel(): void {
    this.#cancel()
  }
}
