import { strictEqual } from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { atLeast, checkFunction, checkObject } from './check.js'

/** What a process holds open. */
export interface OpenResources {
  /** Open file descriptors; undefined where /proc is not there. */
  descriptors: number | undefined
  /** What keeps the event loop alive, by kind and number, as `process.getActiveResourcesInfo()` names it. */
  active: Record<string, number>
}

/** Counts what the process holds open right now. */
export function openResources(): OpenResources {
  const active: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) {
    // Immediates belong to whoever is waiting right now, this module included.
    if (kind !== 'Immediate') active[kind] = (active[kind] ?? 0) + 1
  }
  return { descriptors: countDescriptors(), active }
}

/**
 * Runs `fn` and fails if it leaves a descriptor, a socket or a timer behind. What closes asynchronously gets `graceMs` to do so.
 *
 * @param options - `graceMs`: default 2000.
 */
export async function withoutLeaks<T>(fn: () => Promise<T>, options: { graceMs?: number | undefined } = {}): Promise<T> {
  checkFunction('fn', fn)
  checkObject('options', options)
  const { graceMs = 2000 } = options
  atLeast('graceMs', graceMs, 0)
  const before = openResources()
  const result = await fn()
  const deadline = performance.now() + graceMs
  let excess = leaked(before, openResources())
  while (excess.length > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setImmediate(resolve))
    excess = leaked(before, openResources())
  }
  strictEqual(excess.join(', '), '', 'left open')
  return result
}

function leaked(before: OpenResources, after: OpenResources): string[] {
  const excess: string[] = []
  const descriptors = (after.descriptors ?? 0) - (before.descriptors ?? 0)
  if (descriptors > 0) excess.push(`${descriptors} descriptors`)
  for (const [kind, number] of Object.entries(after.active)) {
    const more = number - (before.active[kind] ?? 0)
    if (more > 0) excess.push(`${more} ${kind}`)
  }
  return excess
}

function countDescriptors(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    return undefined
  }
}
