import { wrongType, wrongValue } from '@upcall/foundation/check'

/** The longest time that one timer of the platform waits. */
const LONGEST_TIMER_MS = 0x7fff_ffff

/** A directory. File names are joined to it. @throws TypeError */
export function checkRoot(root: unknown): void {
  if (typeof root !== 'string' || root === '') wrongType('root', 'the path of a directory', root)
}

/** @throws RangeError */
export function milliseconds(name: string, value: number, min: number): number {
  if (typeof value !== 'number' || !(value >= min && value <= LONGEST_TIMER_MS))
    wrongValue(name, `a number of milliseconds from ${min} to ${LONGEST_TIMER_MS}`, value)
  return value
}
