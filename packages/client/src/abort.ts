/**
 * Who waits for which signal. A caller may give one signal to all its requests; it gets one listener here, however many they are,
 * since Node takes more than ten for a leak and says so.
 */
export class AbortListeners {
  readonly #waiting = new Map<AbortSignal, Set<(reason: unknown) => void>>()

  /** Calls `fn` with the reason when the signal aborts. Returns how to stop listening. */
  add(signal: AbortSignal | undefined, fn: (reason: unknown) => void): () => void {
    if (signal === undefined) return () => {}
    const waiting = this.#waiting.get(signal) ?? this.#listen(signal)
    waiting.add(fn)
    return () => {
      waiting.delete(fn)
      if (waiting.size > 0 || this.#waiting.get(signal) !== waiting) return
      this.#waiting.delete(signal)
      signal.removeEventListener('abort', this.#onAbort)
    }
  }

  #listen(signal: AbortSignal): Set<(reason: unknown) => void> {
    const waiting = new Set<(reason: unknown) => void>()
    this.#waiting.set(signal, waiting)
    signal.addEventListener('abort', this.#onAbort, { once: true })
    return waiting
  }

  readonly #onAbort = ({ target }: Event): void => {
    const signal = target as AbortSignal
    const waiting = this.#waiting.get(signal)
    this.#waiting.delete(signal)
    for (const fn of waiting ?? []) fn(signal.reason)
  }
}
