import type { Duplex } from 'node:stream'

/** A queue of accepted connections for an iteration. */
export class StreamQueue implements AsyncIterable<Duplex> {
  readonly #waiting: Duplex[] = []
  readonly #takers: ((result: IteratorResult<Duplex, undefined>) => void)[] = []
  #closed = false

  push(stream: Duplex): void {
    const taker = this.#takers.shift()
    if (taker !== undefined) taker({ done: false, value: stream })
    else this.#waiting.push(stream)
  }

  /** Ends every iteration and destroys the connections that were not taken. */
  close(): void {
    this.#closed = true
    for (const stream of this.#waiting.splice(0)) stream.destroy()
    for (const taker of this.#takers.splice(0)) taker({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): AsyncIterator<Duplex, undefined> {
    return {
      next: async () => {
        const stream = this.#waiting.shift()
        if (stream !== undefined) return { done: false, value: stream }
        if (this.#closed) return { done: true, value: undefined }
        return new Promise((resolve) => this.#takers.push(resolve))
      },
    }
  }
}
