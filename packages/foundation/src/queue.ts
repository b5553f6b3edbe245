import { onAbort } from './abort.js'

/** Calls that wait for their turn, in their order. A signal takes its call out. */
export class Queue<Item, Result> {
  readonly #waiting: Waiting<Item, Result>[] = []

  get size(): number {
    return this.#waiting.length
  }

  get first(): Item | undefined {
    return this.#waiting[0]?.item
  }

  /** Waits until `shift` or `fail`. */
  add(item: Item, signal: AbortSignal | undefined, aborted: (reason: unknown) => Error): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      const unlisten = onAbort(signal, (reason) => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
        reject(aborted(reason))
      })
      const waiting = { item, resolve, reject, unlisten }
      this.#waiting.push(waiting)
    })
  }

  shift(result: Result): void {
    const waiting = this.#waiting.shift()
    waiting?.unlisten()
    waiting?.resolve(result)
  }

  failFirst(error: Error): void {
    const waiting = this.#waiting.shift()
    waiting?.unlisten()
    waiting?.reject(error)
  }

  settleAll(settle: (waiting: Pick<Waiting<Item, Result>, 'resolve' | 'reject'>) => void): void {
    for (const waiting of this.#waiting.splice(0)) {
      waiting.unlisten()
      settle(waiting)
    }
  }
}

interface Waiting<Item, Result> {
  readonly item: Item
  resolve(result: Result): void
  reject(error: Error): void
  unlisten(): void
}
