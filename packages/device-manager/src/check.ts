// What callers give is checked when it is given: an error says what is wrong, where, and what is allowed.

import { inspect } from 'node:util'
import type { Arch } from '@upcall/wire'

/** As long as a timer may be: setTimeout fires at once beyond this. */
const LONGEST_TIMER_MS = 0x7fff_ffff

/** A value as an error message shows it, in a few characters. */
export function show(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return `an array of ${value.length}`
  return inspect(value, { depth: -1, maxStringLength: 40, breakLength: Number.POSITIVE_INFINITY })
}

/** A value as JSON has it, in a few characters. What is in an array or an object is left out: it may be deeper than a stack. */
export function showJson(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)
  if (typeof value === 'object' && value !== null) {
    if (Array.isArray(value)) return value.length === 0 ? '[]' : `an array of ${value.length}`
    return 'an object'
  }
  return show(value)
}

/** @throws TypeError */
export function checkObject(name: string, value: unknown, allowed = 'an object'): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`${name}: must be ${allowed}, got ${show(value)}`)
}

/** @throws TypeError */
export function checkFunction(name: string, value: unknown, allowed = 'a function'): void {
  if (typeof value !== 'function') throw new TypeError(`${name}: must be ${allowed}, got ${show(value)}`)
}

/** A switch may be left out. @throws TypeError */
export function checkSwitch(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'boolean') throw new TypeError(`${name}: must be true or false, got ${show(value)}`)
}

/** A name in a set of switches that does not exist would switch nothing. @throws RangeError, TypeError */
export function checkSwitches(name: string, value: object, names: readonly string[]): void {
  checkObject(name, value)
  for (const [key, on] of Object.entries(value)) {
    if (!names.includes(key)) throw new RangeError(`${name}.${key}: must be one of ${names.join(', ')}`)
    checkSwitch(`${name}.${key}`, on)
  }
}

/** @throws TypeError */
export function checkSignal(signal: unknown): void {
  if (signal === undefined) return
  const { aborted, addEventListener, removeEventListener } = (signal ?? {}) as Partial<AbortSignal>
  if (typeof aborted !== 'boolean' || typeof addEventListener !== 'function' || typeof removeEventListener !== 'function')
    throw new TypeError(`signal: must be an AbortSignal, got ${show(signal)}`)
}

/** @throws TypeError */
export function checkClock(clock: unknown): void {
  checkObject('clock', clock, 'an object with now and setTimer')
  const { now, setTimer } = clock as Record<string, unknown>
  checkFunction('clock.now', now)
  checkFunction('clock.setTimer', setTimer)
}

/** A directory; filesystem paths are joined to it. @throws TypeError */
export function checkRoot(root: unknown): void {
  if (typeof root !== 'string' || root === '') throw new TypeError(`root: must be the path of a directory, got ${show(root)}`)
}

/** What one timer can wait. @throws RangeError */
export function milliseconds(name: string, value: number, min: number): number {
  if (typeof value !== 'number' || !(value >= min && value <= LONGEST_TIMER_MS))
    throw new RangeError(`${name}: must be a number of milliseconds in ${min} … ${LONGEST_TIMER_MS}, got ${show(value)}`)
  return value
}

/** @throws RangeError */
export function checkArchOption(arch: unknown): asserts arch is Arch {
  if (arch !== 'x86_64' && arch !== 'aarch64') throw new RangeError(`arch: must be 'x86_64' or 'aarch64', got ${show(arch)}`)
}
