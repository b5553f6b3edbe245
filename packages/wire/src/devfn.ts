import { integer } from './check.js'

/**
 * The `devfn` of a slot (0 to 31) and a function (0 to 7), as PCI packs them: `slot << 3 | function`.
 *
 * @throws {@link WireError} `ARGUMENT` if one of them is out of range.
 */
export function packDevfn(slot: number, fn: number): number {
  return (integer(slot, 'slot', 0, 31) << 3) | integer(fn, 'function', 0, 7)
}

/** The slot and the function in a `devfn`. */
export function unpackDevfn(devfn: number): { slot: number; function: number } {
  integer(devfn, 'devfn', 0, 0xff)
  return { slot: devfn >> 3, function: devfn & 7 }
}
