import { callBack } from './callback.js'

/** Who waits for which signal. */
const waiting = new WeakMap<AbortSignal, Set<(reason: unknown) => void>>()

/**
 * Calls `fn` with the signal's reason when it aborts; does nothing for a signal that has aborted already. Returns how to stop listening.
 * A caller may give one signal to all its calls. The signal gets one listener, however many they are, since Node takes more than ten
 * listeners for a leak and says so.
 */
export function onAbort(signal: AbortSignal | undefined, fn: (reason: unknown) => void): () => void {
  if (signal === undefined) return () => {}
  const all = waiting.get(signal) ?? listenTo(signal)
  // The same function may be given twice: each registration is its own.
  const entry = (reason: unknown) => fn(reason)
  all.add(entry)
  return () => {
    all.delete(entry)
    if (all.size > 0 || waiting.get(signal) !== all) return
    waiting.delete(signal)
    signal.removeEventListener('abort', tell)
  }
}

function listenTo(signal: AbortSignal): Set<(reason: unknown) => void> {
  const all = new Set<(reason: unknown) => void>()
  waiting.set(signal, all)
  signal.addEventListener('abort', tell, { once: true })
  return all
}

function tell({ target }: Event): void {
  const signal = target as AbortSignal
  const all = waiting.get(signal)
  waiting.delete(signal)
  // As with event listeners: the others hear of the abort even if one of them throws.
  for (const fn of all ?? []) callBack(fn, signal.reason)
}
