import type { Incoming } from './listener.js'

/** How many connections may wait for their turn. More are refused. */
const MAX_WAITING = 128

/** Limits the connections that are served at once. More wait, unread, so that nothing of theirs is held here. */
export class Admission {
  readonly #max: number
  readonly #serve: (incoming: Incoming) => Promise<void>
  readonly #active = new Set<Promise<void>>()
  readonly #waiting: Incoming[] = []
  #stopped = false

  constructor(max: number, serve: (incoming: Incoming) => Promise<void>) {
    this.#max = max
    this.#serve = serve
  }

  offer(incoming: Incoming): void {
    if (this.#stopped || this.#waiting.length >= MAX_WAITING) {
      incoming.refuse()
      return
    }
    this.#waiting.push(incoming)
    this.#admit()
  }

  /** Refuses the connections that wait, and all that still arrive. */
  stop(): void {
    this.#stopped = true
    for (const incoming of this.#waiting.splice(0)) incoming.refuse()
  }

  /** Resolves when all that were admitted have been served. */
  async idle(): Promise<void> {
    while (this.#active.size > 0) await Promise.all(this.#active)
  }

  #admit(): void {
    while (this.#active.size < this.#max) {
      const incoming = this.#waiting.shift()
      if (incoming === undefined) return
      if (incoming.signal.aborted) continue
      const served = this.#serve(incoming).finally(() => {
        this.#active.delete(served)
        this.#admit()
      })
      this.#active.add(served)
    }
  }
}
