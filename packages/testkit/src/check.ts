// What a test gives is checked when it is given: a plan that does nothing would let the test pass for the wrong reason.

import type { Duplex } from 'node:stream'
import { inspect } from 'node:util'

/** A value as an error message shows it, in a few characters. */
export function show(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return `an array of ${value.length}`
  return inspect(value, { depth: -1, maxStringLength: 40, breakLength: Number.POSITIVE_INFINITY })
}

/** @throws TypeError */
export function checkObject(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`${name}: must be an object, got ${show(value)}`)
}

/** @throws TypeError */
export function checkFunction(name: string, value: unknown): void {
  if (typeof value !== 'function') throw new TypeError(`${name}: must be a function, got ${show(value)}`)
}

/** A name that does not exist would do nothing. @throws TypeError */
export function checkNames(name: string, value: object, names: readonly string[]): void {
  checkObject(name, value)
  for (const key of Object.keys(value))
    if (!names.includes(key)) throw new TypeError(`${name}: ${key}: must be one of ${names.join(', ')}`)
}

/** @throws TypeError */
export function checkDuplex(name: string, value: unknown): asserts value is Duplex {
  const is =
    typeof value === 'object' &&
    value !== null &&
    ['on', 'once', 'pause', 'resume', 'write', 'end', 'destroy'].every((key) => typeof Reflect.get(value, key) === 'function')
  if (!is) throw new TypeError(`${name}: must be a Duplex stream, got ${show(value)}`)
}

/** A number from `min` on, NaN excluded. @throws RangeError */
export function atLeast(name: string, value: number, min: number): number {
  if (typeof value !== 'number' || !(value >= min))
    throw new RangeError(`${name}: must be a number of at least ${min}, got ${show(value)}`)
  return value
}

/** An integer from `min` on. @throws RangeError */
export function count(name: string, value: number, min: number): number {
  if (!Number.isInteger(value) || value < min)
    throw new RangeError(`${name}: must be an integer of at least ${min}, got ${show(value)}`)
  return value
}
