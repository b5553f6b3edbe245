import { show } from '@upcall/foundation/show'
import { packDevfn, unpackDevfn, WireError } from '@upcall/wire'

/** A PCI function's place in domain 0. `devfn` is `slot << 3 | function`. */
export interface Bdf {
  bus: number
  devfn: number
}

const form = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-9a-f])$/i

/**
 * Reads a PCI address as people write it: `00:05.0` or `0000:00:05.0`, all hexadecimal.
 *
 * @throws WireError `ARGUMENT` for anything else: a slot above 1f, a function above 7, or a domain other than 0, which the protocol cannot
 *   name.
 */
export function parseBdf(text: string): Bdf {
  const match = typeof text === 'string' ? form.exec(text) : null
  if (match === null) throw new WireError('ARGUMENT', 'bdf', `must look like 00:05.0 or 0000:00:05.0, got ${show(text)}`)
  const [domain, bus, slot, fn] = match.slice(1).map((digits) => Number.parseInt(digits ?? '0', 16)) as [
    number,
    number,
    number,
    number,
  ]
  if (domain !== 0) throw new WireError('ARGUMENT', 'bdf', `must be in PCI domain 0000, got ${show(text)}`)
  return { bus, devfn: packDevfn(slot, fn) }
}

/** The address in its short form, `00:05.0`. @throws WireError `ARGUMENT` for a bus or devfn that does not fit into a byte. */
export function formatBdf({ bus, devfn }: Bdf): string {
  if (!Number.isInteger(bus) || bus < 0 || bus > 0xff)
    throw new WireError('ARGUMENT', 'bus', `must be an integer from 0 to 255, got ${show(bus)}`)
  const { slot, function: fn } = unpackDevfn(devfn)
  return `${hex(bus)}:${hex(slot)}.${fn}`
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0')
}
