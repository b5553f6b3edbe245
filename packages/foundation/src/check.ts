// What callers give is checked when they give it. An error says which argument is wrong, what is allowed, and what was given.

import { show } from './show.js'

export { show }

/** @throws TypeError */
export function wrongType(name: string, allowed: string, value: unknown): never {
  throw new TypeError(`${name}: must be ${allowed}, got ${show(value)}`)
}

/** @throws RangeError */
export function wrongValue(name: string, allowed: string, value: unknown): never {
  throw new RangeError(`${name}: must be ${allowed}, got ${show(value)}`)
}

/** @throws TypeError */
export function checkObject(name: string, value: unknown, allowed = 'an object'): asserts value is object {
  if (typeof value !== 'object' || value === null || isArray(value)) wrongType(name, allowed, value)
}

/** @throws TypeError */
export function checkFunction(name: string, value: unknown, allowed = 'a function'): void {
  if (typeof value !== 'function') wrongType(name, allowed, value)
}

/** Undefined is allowed. @throws TypeError */
export function checkOptionalFunction(name: string, value: unknown): void {
  if (value !== undefined) checkFunction(name, value)
}

/** @throws TypeError */
export function checkString(name: string, value: unknown, allowed = 'a string'): asserts value is string {
  if (typeof value !== 'string') wrongType(name, allowed, value)
}

/** Undefined is allowed. @throws TypeError */
export function checkOptionalString(name: string, value: unknown): asserts value is string | undefined {
  if (value !== undefined) checkString(name, value)
}

/** Undefined is allowed. @throws TypeError */
export function checkOptionalStrings(name: string, value: unknown): asserts value is readonly string[] | undefined {
  if (value !== undefined && !(isArray(value) && (value as unknown[]).every((each) => typeof each === 'string')))
    wrongType(name, 'an array of strings', value)
}

/** @throws RangeError */
export function checkOneOf(name: string, value: unknown, allowed: readonly string[]): void {
  if (!allowed.includes(value as string)) wrongValue(name, `one of ${allowed.join(', ')}`, value)
}

/** Undefined is allowed. @throws TypeError */
export function checkSwitch(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'boolean') wrongType(name, 'true or false', value)
}

/** Undefined is allowed. @throws TypeError */
export function checkSignal(signal: unknown, name = 'signal'): asserts signal is AbortSignal | undefined {
  if (signal === undefined) return
  const { aborted, addEventListener, removeEventListener } = (signal ?? {}) as Partial<AbortSignal>
  if (typeof aborted !== 'boolean' || typeof addEventListener !== 'function' || typeof removeEventListener !== 'function')
    wrongType(name, 'an AbortSignal', signal)
}

/** @throws TypeError */
export function checkClock(clock: unknown, name = 'clock'): void {
  checkObject(name, clock, 'an object with now and setTimer')
  const { now, setTimer } = clock as Record<string, unknown>
  checkFunction(`${name}.now`, now)
  checkFunction(`${name}.setTimer`, setTimer)
}

/** A name that does not exist would do nothing. @throws TypeError, RangeError */
export function checkNames(name: string, value: unknown, names: readonly string[]): asserts value is object {
  checkObject(name, value)
  for (const key of Object.keys(value))
    if (!names.includes(key)) wrongValue(`${name}: the key`, `one of ${names.join(', ')}`, key)
}

export interface IntegerRange {
  readonly min?: number
  readonly max?: number
}

/** @throws RangeError */
export function integer(name: string, value: unknown, { min = 0, max = Number.MAX_SAFE_INTEGER }: IntegerRange = {}): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    const allowed = max === Number.MAX_SAFE_INTEGER ? `an integer of at least ${min}` : `an integer from ${min} to ${max}`
    wrongValue(name, allowed, value)
  }
  return value
}

/** A number of milliseconds above 0; Infinity is allowed and means no limit. @throws RangeError */
export function duration(name: string, value: number | undefined, fallback: number): number {
  if (value === undefined) return fallback
  if (typeof value !== 'number' || !(value > 0)) wrongValue(name, 'a number of milliseconds above 0', value)
  return value
}

/** The same without Infinity. @throws RangeError */
export function finiteDuration(name: string, value: number | undefined, fallback: number): number {
  if (value === undefined) return fallback
  if (typeof value !== 'number' || !(value > 0 && value < Number.POSITIVE_INFINITY))
    wrongValue(name, 'a finite number of milliseconds above 0', value)
  return value
}

/**
 * A bound on a wait that has no default, in milliseconds. It may be what is left of a longer time, so 0 and less are allowed and mean no
 * time at all; Infinity means no limit. @throws RangeError
 */
export function checkTimeout(name: string, value: unknown): asserts value is number {
  if (typeof value !== 'number' || Number.isNaN(value)) wrongValue(name, 'a number of milliseconds', value)
}

function isArray(value: unknown): boolean {
  try {
    return Array.isArray(value)
  } catch {
    // A revoked proxy.
    return false
  }
}
