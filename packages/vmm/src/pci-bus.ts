import { type Bdf, parseBdf } from '@upcall/device-manager'
import { textOf } from '@upcall/foundation/error'
import { isWireError, packDevfn, unpackDevfn } from '@upcall/wire'
import { VmError } from './error.js'

/** Slot 0 is the host bridge. */
const FIRST_SLOT = 1
const LAST_SLOT = 31

/** Function 0 of the lowest slot in which nothing sits, or undefined if all are taken. */
export function nextFunction(taken: readonly Bdf[]): Bdf | undefined {
  for (let slot = FIRST_SLOT; slot <= LAST_SLOT; slot++) {
    if (!taken.some(({ devfn }) => unpackDevfn(devfn).slot === slot)) return { bus: 0, devfn: packDevfn(slot, 0) }
  }
  return undefined
}

/** @throws VmError `INVALID` unless it is the address of a place on bus 0. */
export function readBdf(text: string): Bdf {
  const bdf = parseAddress(text)
  if (bdf.bus !== 0) throw refused(text, 'this machine has bus 00 only', 'Choose a place on it.')
  if (unpackDevfn(bdf.devfn).slot < FIRST_SLOT)
    throw refused(text, "this slot is the host bridge's", 'Choose 00:01.0 to 00:1f.7.')
  return bdf
}

/** @throws VmError `INVALID` */
export function parseAddress(text: string): Bdf {
  try {
    return parseBdf(text)
  } catch (error) {
    if (isWireError(error)) throw refused(text, textOf(error), 'Write it as 00:05.0.', error)
    throw error
  }
}

function refused(text: string, what: string, next: string, cause?: unknown): VmError {
  return new VmError({ code: 'INVALID', op: 'bdf', subject: text, what, next, cause })
}

export function sameFunction(a: Bdf, b: Bdf): boolean {
  return a.bus === b.bus && a.devfn === b.devfn
}
