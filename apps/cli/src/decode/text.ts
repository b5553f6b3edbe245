import { type Decoded, titleOf } from '@upcall/trace'
import type { Paint } from '../output.js'

/** One line for people: the offset, an arrow to the guest or from it, and what it is. */
export function decodedText(decoded: Decoded, paint: Paint): string {
  const at = paint('grey', String(decoded.offset).padStart(8))
  if ('error' in decoded) return `${at}  ${paint('red', '!')} ${titleOf(decoded)}`
  return `${at}  ${decoded.direction === 'request' ? paint('green', '→') : paint('yellow', '←')} ${titleOf(decoded)}`
}
