import type { ByteSource } from './bytes.js'
import { type CapturedPacket, captureError, LONGEST_PACKET } from './captured.js'

/** The magic of a pcap file, as its bytes stand, tells the byte order and the unit of the fractions of a second. */
const MAGICS = new Map<number, { littleEndian: boolean; perSecond: number }>([
  [0xd4c3b2a1, { littleEndian: true, perSecond: 1e6 }],
  [0xa1b2c3d4, { littleEndian: false, perSecond: 1e6 }],
  [0x4d3cb2a1, { littleEndian: true, perSecond: 1e9 }],
  [0xa1b23c4d, { littleEndian: false, perSecond: 1e9 }],
])

const FILE_HEADER = 24
const RECORD_HEADER = 16

/** @param magic - The first four bytes, as a big-endian number. */
export function isPcap(magic: number): boolean {
  return MAGICS.has(magic)
}

/** The packets of a pcap file of which the magic was read. */
export async function* readPcap(source: ByteSource, magic: number): AsyncGenerator<CapturedPacket> {
  const { littleEndian, perSecond } = MAGICS.get(magic)!
  const rest = await source.take(FILE_HEADER - 4)
  if (rest.length < FILE_HEADER - 4) throw captureError(source.offset, `the header of a pcap file has ${FILE_HEADER} bytes`)
  const header = viewOf(rest)
  const [major, minor] = [header.getUint16(0, littleEndian), header.getUint16(2, littleEndian)]
  if (major !== 2) throw captureError(4, `version ${major}.${minor} of pcap is not known, only 2`)
  // The upper bits say whether there is a checksum of the frame.
  const linkType = header.getUint32(16, littleEndian) & 0x0fff_ffff
  for (let number = 1; ; number++) {
    const offset = source.offset
    const record = await source.take(RECORD_HEADER)
    if (record.length === 0) return
    const about = { number, offset, linkType }
    if (record.length < RECORD_HEADER) {
      yield { ...about, time: undefined, length: 0, bytes: record, problem: 'the file ends in its header' }
      return
    }
    const view = viewOf(record)
    const [seconds, fraction, kept, length] = [0, 4, 8, 12].map((at) => view.getUint32(at, littleEndian)) as [
      number,
      number,
      number,
      number,
    ]
    if (kept > LONGEST_PACKET)
      throw captureError(offset, `packet ${number} has ${kept} bytes by its header; at most ${LONGEST_PACKET} are read`)
    const bytes = await source.take(kept)
    const time = seconds * 1000 + (fraction / perSecond) * 1000
    const problem = bytes.length < kept && `the file ends after ${bytes.length} of its ${kept} bytes`
    yield { ...about, time, length, bytes, ...(problem && { problem }) }
  }
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
