import { UsageError } from '../errors.js'

/** A place in a hex text at which a message that was written short ends: the rest of it is zeros. */
export const BOUNDARY = Symbol('boundary')

// `xxd`: offset, colon, groups, two spaces, text. `hexdump -C`: offset, two spaces, bytes, bar, text, bar.
// Digits that may be cut into groups in several ways would make an expression try all of them.
const xxdLine = /^([0-9a-f]{8,}): ([0-9a-f]{2,}(?: [0-9a-f]{2,})*) ?(?: {2}.*)?$/i
const hexdumpLine = /^([0-9a-f]{8,}) {2}((?: {0,2}[0-9a-f]{2}\b)+) *(?:\|.*\|)?$/i
const hexdumpEnd = /^([0-9a-f]{8,})$/i
/** The most bytes that a `*` may stand for. */
const MAX_FILLER = 16 << 20
/** The magic as it stands in a stream, with or without the service byte before it. */
const messageStart = /^(?:64)?00014d44/i

/**
 * Reads bytes written in hexadecimal, a line at a time: plain digits with any of space, `:`, `,`, `0x` and `#` comments in between, or
 * what `xxd` and `hexdump -C` print, its `*` for repeated lines included. A blank line, or a line that begins with the magic, begins
 * a message.
 */
export class HexReader {
  #dump: { next: number; last: Uint8Array; repeat: boolean } | undefined

  /** @throws UsageError that names the line. */
  read(line: string, number: number): (Uint8Array | typeof BOUNDARY)[] {
    const written = line.trim()
    if (written === '') {
      this.#dump = undefined
      return [BOUNDARY]
    }
    // Before comments are looked for: the text column of a dump may have any character.
    const dumped = xxdLine.exec(written) ?? hexdumpLine.exec(written)
    if (dumped) return this.#dumpLine(Number.parseInt(dumped[1]!, 16), bytesOf(dumped[2]!, number), number)
    if (this.#dump) {
      if (written === '*') {
        this.#dump.repeat = true
        return []
      }
      const end = hexdumpEnd.exec(written)
      if (end) return this.#dumpLine(Number.parseInt(end[1]!, 16), new Uint8Array(0), number)
    }
    const text = written.replace(/(?:^|\s)#.*$/s, '')
    const digits = text.replace(/0x|[\s:,]/gi, '')
    const bytes = bytesOf(digits, number)
    return messageStart.test(digits) ? [BOUNDARY, bytes] : [bytes]
  }

  #dumpLine(offset: number, bytes: Uint8Array, line: number): (Uint8Array | typeof BOUNDARY)[] {
    const before = this.#dump
    this.#dump = { next: offset + bytes.length, last: bytes, repeat: false }
    if (before === undefined || offset < before.next) return [BOUNDARY, bytes]
    const missing = offset - before.next
    if (missing === 0 || !before.repeat || before.last.length === 0) return [bytes]
    if (missing > MAX_FILLER) {
      const limit = `at most ${MAX_FILLER} are filled in`
      throw new UsageError(`line ${line}`, `the "*" before it stands for ${missing} bytes; ${limit}`)
    }
    const filler = new Uint8Array(missing)
    for (let at = 0; at < missing; at += before.last.length) filler.set(before.last.subarray(0, missing - at), at)
    return [filler, bytes]
  }
}

function bytesOf(text: string, line: number): Uint8Array {
  const digits = text.replace(/\s/g, '')
  const wrong = /[^0-9a-f]/i.exec(digits)
  if (wrong)
    throw new UsageError(
      `line ${line}`,
      `${JSON.stringify(wrong[0])} is not a hexadecimal digit`,
      'For a raw stream pass --format raw.',
    )
  if (digits.length % 2 !== 0) throw new UsageError(`line ${line}`, `${digits.length} hexadecimal digits are not whole bytes`)
  return Uint8Array.from(Buffer.from(digits, 'hex'))
}

/** How much of an input has to be there for telling hex text from a raw stream. */
export const SNIFF_BYTES = 64

/**
 * Whether an input that begins like this is hex text. A raw stream has a zero byte among its first two, the magic's first, unless the
 * words of the hybrid vsock handshake come before it.
 */
export function looksLikeHex(start: Uint8Array): boolean {
  const text = Buffer.from(start).toString('latin1')
  return /^[\t\n\r\x20-\x7e]*$/.test(text) && !/^(?:CONNECT|OK) \d/i.test(text)
}
