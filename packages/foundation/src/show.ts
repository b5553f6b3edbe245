const LONGEST_TEXT = 40

/**
 * A value as an error message shows it, in a few characters. It never throws: a value that throws when it is looked at is shown by
 * its type alone, and the contents of objects and arrays are left out, since they may be deeper than the stack.
 */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value.length > LONGEST_TEXT ? `${value.slice(0, LONGEST_TEXT)}…` : value)
    case 'bigint':
      return `${showInteger(value)}n`
    case 'number':
      return Object.is(value, -0) ? '-0' : String(value)
    case 'function':
      return 'a function'
    case 'object':
      return value === null ? 'null' : showObject(value)
    default:
      return String(value)
  }
}

/** An address or a size: hexadecimal from 10 on. */
export function showInteger(value: bigint): string {
  return value > -10n && value < 10n ? `${value}` : value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`
}

function showObject(value: object): string {
  try {
    if (value instanceof Uint8Array) return `${value.length} bytes`
    if (Array.isArray(value)) return value.length === 0 ? '[]' : `an array of ${value.length}`
    if (value instanceof Error) return `an error (${value.name})`
    if (typeof (value as { then?: unknown }).then === 'function') return 'a promise'
  } catch {
    // A revoked proxy, or a getter that throws.
  }
  return 'an object'
}
