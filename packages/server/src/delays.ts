import { wrongValue } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { ConnectionEndedError } from './error.js'

const LONGEST_MS = 2 ** 31 - 1

/** The delays that the service of one connection waits for. They end with the connection. */
export class Delays {
  readonly #clock: Clock
  readonly #connection: number
  readonly #pending = new Set<() => void>()
  #ended = false

  constructor(clock: Clock, connection: number) {
    this.#clock = clock
    this.#connection = connection
  }

  /** Never throws: what is wrong rejects. */
  start(ms: number): Promise<void> {
    const promise = new Promise<void>((resolve, reject) => {
      if (typeof ms !== 'number' || !(ms >= 0 && ms <= LONGEST_MS))
        wrongValue('ms', `a number of milliseconds from 0 to ${LONGEST_MS}`, ms)
      const fail = () =>
        reject(new ConnectionEndedError(this.#connection, 'delay', `the connection ended during a delay of ${ms} ms`))
      if (this.#ended) return fail()
      const drop = () => {
        cancel()
        fail()
      }
      const cancel = this.#clock.setTimer(ms, () => {
        this.#pending.delete(drop)
        resolve()
      })
      this.#pending.add(drop)
    })
    // A service may have stopped waiting. That is not an unhandled rejection.
    promise.catch(() => {})
    return promise
  }

  /** Rejects those that are pending, and leaves no timer. */
  end(): void {
    this.#ended = true
    for (const drop of this.#pending) drop()
    this.#pending.clear()
  }
}
