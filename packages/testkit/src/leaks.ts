import { strictEqual } from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { checkFunction, checkObject, wrongValue } from '@upcall/foundation/check'

/** The resources that a process holds open. */
export interface OpenResources {
  /** The number of open file descriptors; undefined where there is no /proc. */
  descriptors: number | undefined
  /** What keeps the event loop alive, by kind and number, as `process.getActiveResourcesInfo()` names it. */
  active: Record<string, number>
}

/** Counts what the process holds open right now. */
export function openResources(): OpenResources {
  const active: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) {
    // Immediates belong to code that is waiting right now, including this module.
    if (kind !== 'Immediate') active[kind] = (active[kind] ?? 0) + 1
  }
  return { descriptors: countDescriptors(), active }
}

/**
 * Runs `fn` and fails if it leaves a descriptor, a socket or a timer open.
 *
 * @param options - `timeoutMs`: how long resources that close asynchronously may take after `fn`. Default 2000.
 */
export async function withoutLeaks<T>(fn: () => Promise<T>, options: { timeoutMs?: number | undefined } = {}): Promise<T> {
  checkFunction('fn', fn)
  checkObject('options', options)
  const { timeoutMs = 2000 } = options
  if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0))
    wrongValue('timeoutMs', 'a number of milliseconds of at least 0', timeoutMs)
  const before = openResources()
  const result = await fn()
  const deadline = performance.now() + timeoutMs
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
