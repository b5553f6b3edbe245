// What callers give is checked when it is given: an error says what is wrong, where, and what is allowed.

import { inspect } from 'node:util'

/** A value as an error message shows it, in a few characters. */
export function show(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (isPromise(value)) return 'a promise'
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

/** @throws RangeError */
export function positive(name: string, value: number): number {
  if (typeof value !== 'number' || !(value > 0)) throw new RangeError(`${name}: must be a positive number, got ${show(value)}`)
  return value
}

export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as Partial<PromiseLike<unknown>>).then === 'function'
}

/** For what is wrong already because it is a promise: its rejection must not be an unhandled one. */
export function ignoreRejection(value: unknown): void {
  if (isPromise(value)) Promise.resolve(value).catch(() => {})
}
