import { type MaybePromise, NO_REPLY, type NoReply } from '../backend.js'

/** Thrown where the kernel's thread crashes. The thread never returns, and the locks that it holds are never released. */
export class Oops extends Error {
  override readonly name = 'Oops'
  readonly holdsLock: boolean

  constructor(what: string, { holdsLock }: { holdsLock: boolean }) {
    super(what)
    this.holdsLock = holdsLock
  }
}

/**
 * The kernel's device-hotplug lock. CPU and MMIO requests of all connections pass through it one at a time; PCI has its own lock. Once
 * the lock is lost, every request that needs it waits for ever.
 */
export class HotplugLock {
  readonly #onOops: (oops: Oops) => void
  #lost = false
  #waiting: Promise<void> | undefined

  constructor(onOops: (oops: Oops) => void) {
    this.#onOops = onOops
  }

  get lost(): boolean {
    return this.#lost
  }

  /** Runs in this turn if the lock is free, otherwise in the order of the calls. */
  run<T>(operation: () => MaybePromise<T>): MaybePromise<T | NoReply> {
    if (this.#waiting === undefined) {
      const result = this.#enter(operation)
      if (result instanceof Promise) this.#queue(result)
      return result
    }
    const turn = this.#waiting.then(() => this.#enter(operation))
    this.#queue(turn)
    return turn
  }

  #enter<T>(operation: () => MaybePromise<T>): MaybePromise<T | NoReply> {
    if (this.#lost) return NO_REPLY
    try {
      return operation()
    } catch (error) {
      if (!(error instanceof Oops)) throw error
      this.#lost = error.holdsLock
      this.#onOops(error)
      return NO_REPLY
    }
  }

  #queue(inside: Promise<unknown>): void {
    const leave = () => {
      if (this.#waiting === done) this.#waiting = undefined
    }
    const done: Promise<void> = inside.then(leave, leave)
    this.#waiting = done
  }
}
