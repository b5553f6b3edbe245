import { inspect } from 'node:util'

/** Who waits for which signal. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>()

/**
 * Calls `fn` when the signal aborts. Returns how to stop listening. A caller may give one signal to all its connections; it gets one
 * listener, however many they are, since Node takes more than ten for a leak and says so.
 */
export function onAbort(signal: AbortSignal | undefined, fn: () => void): () => void {
  if (signal === undefined) return () => {}
  const all = waiting.get(signal) ?? listenTo(signal)
  all.add(fn)
  return () => {
    all.delete(fn)
    if (all.size > 0 || waiting.get(signal) !== all) return
    waiting.delete(signal)
    signal.removeEventListener('abort', tell)
  }
}

function listenTo(signal: AbortSignal): Set<() => void> {
  const all = new Set<() => void>()
  waiting.set(signal, all)
  signal.addEventListener('abort', tell, { once: true })
  return all
}

function tell({ target }: Event): void {
  const all = waiting.get(target as AbortSignal)
  waiting.delete(target as AbortSignal)
  for (const fn of all ?? []) fn()
}

/** @throws {TypeError} unless `signal` is one, or left out: told before a timer or a socket depends on it. */
export function checkSignal(signal: unknown): void {
  if (signal === undefined) return
  const { aborted, addEventListener, removeEventListener } = (signal ?? {}) as Partial<AbortSignal>
  if (typeof aborted === 'boolean' && typeof addEventListener === 'function' && typeof removeEventListener === 'function') return
  throw new TypeError(`signal is ${inspect(signal, { depth: -1 })}; an AbortSignal is allowed`)
}

/** @throws {TypeError} unless `options` is an object. */
export function checkOptions(options: unknown): void {
  if (typeof options !== 'object' || options === null) throw new TypeError(`options is ${inspect(options)}; an object is allowed`)
}
