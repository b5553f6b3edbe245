import { TraceError } from '../error.js'

/** One packet of a capture, of any link type. */
export interface CapturedPacket {
  /** From 1, as Wireshark counts. */
  readonly number: number
  /** Where its record begins, in bytes. */
  readonly offset: number
  /** Milliseconds since the epoch, with a fraction; undefined where the capture has no time. */
  readonly time: number | undefined
  readonly linkType: number
  /** How long it was. `bytes` may have less. */
  readonly length: number
  readonly bytes: Uint8Array
  /** Why it cannot be used, although what comes after it can; `bytes` has what there is. */
  readonly problem?: string
}

/** The longest packet that is read. A longer one stands for a damaged file, or for a hostile one. */
export const LONGEST_PACKET = 1 << 20

export function captureError(offset: number, what: string): TraceError {
  const next = 'Check that the file is complete, and that it is a capture.'
  return new TraceError({ code: 'CAPTURE', subject: `at byte ${offset}`, what, next })
}
