import type { Descriptor, FrontEndBinding } from '../native/binding.js'

/** An eventfd: the kick, the call or the error descriptor of a ring. */
export class EventDescriptor {
  /** Goes to the back end with SET_VRING_KICK, CALL or ERR. */
  readonly descriptor: Descriptor
  readonly #binding: FrontEndBinding

  constructor(binding: FrontEndBinding) {
    this.#binding = binding
    this.descriptor = binding.eventfd()
  }

  signal(): void {
    this.#binding.signal(this.descriptor)
  }

  /** Forgets the signals so far. */
  drain(): void {
    this.#binding.drain(this.descriptor)
  }

  /** Calls back on each signal, until `unwatch` or `close`. The callback has to drain. */
  watch(callback: () => void): void {
    this.#binding.watch(this.descriptor, this.#binding.READABLE, callback)
  }

  unwatch(): void {
    this.#binding.unwatch(this.descriptor)
  }

  /** Resolves at the next signal. Those from before do not count. */
  next(): Promise<void> {
    this.drain()
    return new Promise((resolve) =>
      this.watch(() => {
        this.drain()
        this.unwatch()
        resolve()
      }),
    )
  }

  /** Idempotent. */
  close(): void {
    this.#binding.close(this.descriptor)
  }
}
