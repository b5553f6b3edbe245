import { inspect } from 'node:util'
import { QemuError } from './errors.js'

// What callers give is checked when it is given: a wrong signal, say, would be found out in a timer, where nothing catches what it throws.

const LONGEST = 100

/** A value as an error message shows it, in a few characters. */
export function show(value: unknown): string {
  if (typeof value === 'number') return String(value)
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch {
    // A bigint, what contains itself, or what is deeper than the stack.
  }
  text ??= inspect(value, { depth: 0 })
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
}

export function refused(what: string, value: unknown, allowed: string): QemuError {
  return new QemuError('INVALID_OPTION', `${what} is ${show(value)}; allowed: ${allowed}`)
}

/** @throws QemuError */
export function checkOptions(what: string, options: unknown): void {
  if (typeof options !== 'object' || options === null)
    throw new QemuError('INVALID_OPTION', `${what}: options are ${show(options)}; allowed: an object`)
}

/** One may be left out. @throws QemuError */
export function checkSignal(what: string, signal: unknown): void {
  if (signal === undefined) return
  const { aborted, addEventListener, removeEventListener } = (signal ?? {}) as Partial<AbortSignal>
  if (typeof aborted !== 'boolean' || typeof addEventListener !== 'function' || typeof removeEventListener !== 'function')
    throw refused(`${what}: signal`, signal, 'an AbortSignal')
}

/** @throws QemuError */
export function checkClock(what: string, clock: unknown): void {
  const { now, setTimer } = (clock ?? {}) as Record<string, unknown>
  if (typeof now !== 'function' || typeof setTimer !== 'function')
    throw refused(`${what}: clock`, clock, 'an object with now and setTimer')
}

/** One may be left out. @throws QemuError */
export function checkFunction(what: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'function') throw refused(what, value, 'a function')
}

/** One may be left out. @throws QemuError */
export function checkText(what: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'string') throw refused(what, value, 'a text')
}

/** They may be left out. @throws QemuError */
export function checkTexts(what: string, value: unknown): void {
  if (value !== undefined && !(Array.isArray(value) && value.every((each) => typeof each === 'string')))
    throw refused(what, value, 'an array of texts')
}

/** One may be left out. @throws QemuError */
export function checkSwitch(what: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'boolean') throw refused(what, value, 'true or false')
}
