import { LINKTYPE_VSOCK } from './vsock-packet.js'

const MAGIC_MICROSECONDS = 0xa1b2c3d4
const FILE_HEADER = 24
const PACKET_HEADER = 16
/** Wireshark takes longer packets for a damaged file. */
const LONGEST_PACKET = 262_144

export interface PcapWriterOptions {
  /** The most bytes of a packet that are kept; the file says how long it was. Default and most 262144. */
  snapLength?: number | undefined
}

/** Makes the bytes of a pcap file of LINKTYPE_VSOCK, little-endian with microseconds. Pure: it gives bytes, and writes nothing. */
export class PcapWriter {
  readonly snapLength: number

  /** @throws RangeError for a length that is not from 1 to 262144. */
  constructor({ snapLength = LONGEST_PACKET }: PcapWriterOptions = {}) {
    if (!Number.isInteger(snapLength) || snapLength < 1 || snapLength > LONGEST_PACKET)
      throw new RangeError(`snapLength: must be an integer from 1 to ${LONGEST_PACKET}`)
    this.snapLength = snapLength
  }

  /** What the file begins with. */
  header(): Uint8Array {
    const bytes = new Uint8Array(FILE_HEADER)
    const view = new DataView(bytes.buffer)
    view.setUint32(0, MAGIC_MICROSECONDS, true)
    view.setUint16(4, 2, true)
    view.setUint16(6, 4, true)
    view.setUint32(16, this.snapLength, true)
    view.setUint32(20, LINKTYPE_VSOCK, true)
    return bytes
  }

  /** @param time - Milliseconds since the epoch; fractions are kept to microseconds. */
  packet(time: Date | number, bytes: Uint8Array): Uint8Array {
    const microseconds = Math.max(0, Math.round(Number(time) * 1000)) || 0
    const kept = bytes.subarray(0, this.snapLength)
    const record = new Uint8Array(PACKET_HEADER + kept.length)
    const view = new DataView(record.buffer)
    view.setUint32(0, Math.floor(microseconds / 1e6), true)
    view.setUint32(4, microseconds % 1e6, true)
    view.setUint32(8, kept.length, true)
    view.setUint32(12, bytes.length, true)
    record.set(kept, PACKET_HEADER)
    return record
  }
}
