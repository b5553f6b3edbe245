// A message as rows of bytes, each byte with the field that it belongs to. Pure.

import type { FieldView, MessageView } from '../../src/page/events.js'

export const ROW = 16

/** Bytes of one field within one row. */
export interface Segment {
  /** Its place in the message's list of fields; undefined for bytes that belong to no field. */
  field: number | undefined
  /** Whether the field begins here. */
  begins: boolean
  bytes: string[]
}

export interface Row {
  offset: number
  segments: Segment[]
}

/** The bytes that the message carries, in rows. What comes after them is zeros; `zerosFrom` says where these begin, if there are any. */
export function dump({ hex, length, fields }: Pick<MessageView, 'hex' | 'length' | 'fields'>): {
  rows: Row[]
  zerosFrom: number | undefined
} {
  const given = hex.length >> 1
  // Rows are whole: the zeros that fill the last one are known.
  const shown = Math.min(length, Math.ceil(Math.max(given, 1) / ROW) * ROW)
  const owners = ownersOf(fields, shown)
  const rows: Row[] = []
  for (let offset = 0; offset < shown; offset += ROW) {
    const segments: Segment[] = []
    for (let at = offset; at < Math.min(offset + ROW, shown); at++) {
      const byte = at < given ? hex.slice(2 * at, 2 * at + 2) : '00'
      const field = owners[at]
      const last = segments.at(-1)
      if (last && last.field === field) last.bytes.push(byte)
      else segments.push({ field, begins: field !== undefined && fields[field]!.offset === at, bytes: [byte] })
    }
    rows.push({ offset, segments })
  }
  return { rows, zerosFrom: shown < length ? shown : undefined }
}

/** Of each byte: the first field that has it. */
function ownersOf(fields: readonly FieldView[], length: number): (number | undefined)[] {
  const owners = new Array<number | undefined>(length).fill(undefined)
  for (const [index, { offset, length: size }] of fields.entries())
    for (let at = Math.max(0, offset); at < Math.min(offset + size, length); at++) owners[at] ??= index
  return owners
}

/** `bytes 8-11`, `byte 4`. */
export function place({ offset, length }: FieldView): string {
  return length <= 1 ? `byte ${offset}` : `bytes ${offset}-${offset + length - 1}`
}
