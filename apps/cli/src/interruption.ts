import { setMaxListeners } from 'node:events'
import { Interrupted } from './errors.js'

/** Two signals within this time are a single signal that was sent twice. A Ctrl-C after it comes from a person who does not want to wait. */
const TWICE_MS = 500

/** What the signals of a process mean for what it does. */
export class Interruption {
  readonly #interrupt = new AbortController()
  readonly #hurry = new AbortController()
  readonly #now: () => number
  #at: number | undefined

  /** @param now - Milliseconds from any fixed point. */
  constructor(now: () => number) {
    this.#now = now
    // As many listen as there are connections, which Node would take for a leak.
    setMaxListeners(0, this.#interrupt.signal)
  }

  /** Aborts at the first signal. */
  get signal(): AbortSignal {
    return this.#interrupt.signal
  }

  /** Aborts when the orderly end takes too long for the person who asked for it. */
  get hurry(): AbortSignal {
    return this.#hurry.signal
  }

  receive(signal: 'SIGINT' | 'SIGTERM'): void {
    const now = this.#now()
    this.#at ??= now
    this.#interrupt.abort(new Interrupted(signal))
    if (signal === 'SIGINT' && now - this.#at >= TWICE_MS) this.#hurry.abort()
  }

  /** Ends everything for another reason than a signal. */
  end(reason: Error): void {
    this.#interrupt.abort(reason)
  }
}
