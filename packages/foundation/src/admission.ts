/** What waits to be served. */
interface Waiting {
  /** Aborts when it has gone. */
  readonly signal: AbortSignal
  refuse(): void
}

/** How many connections may wait for their turn. More are refused. */
const MAX_WAITING = 128

/** Limits the connections that are served at once. More wait, unread, so that nothing of theirs is held here. */
export class Admission<Incoming extends Waiting> {
  readonly #max: number
  readonly #serve: (incoming: Incoming) => Promise<void>
  readonly #onOverflow: ((incoming: Incoming) => void) | undefined
  readonly #active = new Set<Promise<void>>()
  readonly #waiting: Incoming[] = []
  #stopped = false

  /**
   * @param serve - It must not reject.
   * @param onOverflow - Hears of each connection that is refused because too many wait.
   */
  constructor(max: number, serve: (incoming: Incoming) => Promise<void>, onOverflow?: (incoming: Incoming) => void) {
    this.#max = max
    this.#serve = serve
    this.#onOverflow = onOverflow
  }

  /** How many are being served. */
  get active(): number {
    return this.#active.size
  }

  offer(incoming: Incoming): void {
    if (this.#stopped) {
      incoming.refuse()
      return
    }
    if (this.#waiting.length >= MAX_WAITING) {
      incoming.refuse()
      this.#onOverflow?.(incoming)
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
