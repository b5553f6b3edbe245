// What callers give is checked when it is given: an error says what is wrong, where, and what is allowed.

import { inspect } from 'node:util'

/** A value as an error message shows it, in a few characters. */
export function show(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return `an array of ${value.length}`
  return inspect(value, { depth: -1, maxStringLength: 40, breakLength: Number.POSITIVE_INFINITY })
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

/** @throws TypeError */
export function checkSignal(signal: unknown): void {
  if (signal === undefined) return
  const { aborted, addEventListener, removeEventListener } = (signal ?? {}) as Partial<AbortSignal>
  if (typeof aborted !== 'boolean' || typeof addEventListener !== 'function' || typeof removeEventListener !== 'function')
    throw new TypeError(`signal: must be an AbortSignal, got ${show(signal)}`)
}

/** A number of milliseconds above 0, Infinity included. @throws RangeError */
export function duration(name: string, value: number | undefined, fallback: number): number {
  if (value === undefined) return fallback
  if (typeof value !== 'number' || !(value > 0))
    throw new RangeError(`${name}: must be a number of milliseconds above 0, got ${show(value)}`)
  return value
}

/** The same without Infinity. @throws RangeError */
export function finiteDuration(name: string, value: number | undefined, fallback: number): number {
  if (duration(name, value, fallback) === Number.POSITIVE_INFINITY)
    throw new RangeError(`${name}: must be a finite number of milliseconds above 0, got Infinity`)
  return value ?? fallback
}
