import { type Bdf, formatBdf, parseBdf } from '@upcall/device-manager'
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

/** @throws VmError `INVALID` for what is no address, or none on this machine's one bus. */
export function readBdf(text: string): Bdf {
  const bdf = parseAddress(text)
  if (bdf.bus !== 0) throw new VmError('INVALID', `bdf: ${formatBdf(bdf)} is on another bus; this machine has bus 00 only`)
  if (unpackDevfn(bdf.devfn).slot < FIRST_SLOT)
    throw new VmError('INVALID', `bdf: ${formatBdf(bdf)} is the host bridge's slot; choose 00:01.0 to 00:1f.7`)
  return bdf
}

/** @throws VmError `INVALID` */
export function parseAddress(text: string): Bdf {
  try {
    return parseBdf(text)
  } catch (error) {
    if (isWireError(error)) throw new VmError('INVALID', error.message, { cause: error })
    throw error
  }
}

export function sameFunction(a: Bdf, b: Bdf): boolean {
  return a.bus === b.bus && a.devfn === b.devfn
}
