const brand = Symbol.for('@upcall/wire.WireError')

/**
 * What was wrong:
 * - `ARGUMENT`: a value that cannot be put on the wire, or that the guest would certainly refuse. The caller's mistake.
 * - `LENGTH`: a buffer that is not (or does not hold) one whole message.
 * - `MAGIC`, `TYPE`, `SIZE`, `FLAGS`: the header's field of that name has a value that it may not have here.
 */
export type WireErrorCode = 'ARGUMENT' | 'LENGTH' | 'MAGIC' | 'TYPE' | 'SIZE' | 'FLAGS'

/** The one error that this package throws, in either direction. */
export class WireError extends Error {
  override readonly name = 'WireError'
  readonly code: WireErrorCode
  /** Where: the path of the offending value (`apicIds[1]`, `size`) or the header's field (`magic_version`). */
  readonly path: string

  constructor(code: WireErrorCode, path: string, what: string) {
    super(`${path}: ${what}`)
    this.code = code
    this.path = path
    Object.defineProperty(this, brand, { value: true })
  }
}

/** True for a {@link WireError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isWireError(value: unknown): value is WireError {
  return typeof value === 'object' && value !== null && brand in value
}

/** Characters of a text. */
const LONGEST = 40

/** A value as an error message shows it, in a few characters. */
export function show(value: unknown): string {
  if (typeof value === 'bigint') return `${showInteger(value)}n`
  if (typeof value === 'string') return JSON.stringify(value.length > LONGEST ? `${value.slice(0, LONGEST)}…` : value)
  if (typeof value === 'function') return 'a function'
  if (value instanceof Uint8Array) return `${value.length} bytes`
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value)
}

/** An address or a size: hexadecimal, from 10 on. */
export function showInteger(value: bigint): string {
  return value < 10n ? `${value}` : `0x${value.toString(16)}`
}
