import { TraceError } from '../error.js'

// The packets of LINKTYPE_VSOCK, as the kernel's vsockmon writes them and Wireshark reads them. Pure.
// Source: include/uapi/linux/vsockmon.h. All integers are little-endian.

/** The link type of vsock in pcap and pcapng. */
export const LINKTYPE_VSOCK = 271

/** One end of a connection. The host has CID 2. */
export interface VsockEnd {
  readonly cid: bigint
  readonly port: number
}

/** What a packet is about. */
export type VsockOp = 'connect' | 'disconnect' | 'control' | 'payload'

/** One packet of LINKTYPE_VSOCK. */
export interface VsockPacket {
  readonly source: VsockEnd
  readonly destination: VsockEnd
  readonly op: VsockOp
  /** The header of virtio-vsock, 44 bytes, where the packet was seen on a virtio device. */
  readonly virtio?: Uint8Array | undefined
  readonly payload: Uint8Array
}

const HEADER = 32
const VIRTIO_HEADER = 44
const OPS: readonly VsockOp[] = ['connect', 'disconnect', 'control', 'payload']
const NO_INFO = 1
const VIRTIO = 2

/** @throws {TraceError} `PACKET` for a CID, a port or a virtio header that does not fit its field. */
export function encodeVsockPacket({ source, destination, op, virtio, payload }: VsockPacket): Uint8Array {
  if (virtio !== undefined && virtio.length !== VIRTIO_HEADER)
    throw packetError('virtio', `a header of virtio-vsock has ${VIRTIO_HEADER} bytes, got ${virtio.length}`)
  const code = OPS.indexOf(op)
  if (code < 0) throw packetError('op', `must be one of ${OPS.join(', ')}`)
  const bytes = new Uint8Array(HEADER + (virtio?.length ?? 0) + payload.length)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, checkCid(source.cid, 'source'), true)
  view.setBigUint64(8, checkCid(destination.cid, 'destination'), true)
  view.setUint32(16, checkPort(source.port, 'source'), true)
  view.setUint32(20, checkPort(destination.port, 'destination'), true)
  view.setUint16(24, code + 1, true)
  view.setUint16(26, virtio === undefined ? NO_INFO : VIRTIO, true)
  view.setUint16(28, virtio?.length ?? 0, true)
  if (virtio !== undefined) bytes.set(virtio, HEADER)
  bytes.set(payload, HEADER + (virtio?.length ?? 0))
  return bytes
}

/**
 * Reads one packet. The bytes of the result are views of those that were given.
 *
 * @throws {TraceError} `PACKET` for a packet that is too short, or has an unknown operation.
 */
export function decodeVsockPacket(bytes: Uint8Array): VsockPacket {
  if (bytes.length < HEADER) throw packetError('packet', `${bytes.length} bytes are fewer than the ${HEADER} of its header`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const code = view.getUint16(24, true)
  const op = OPS[code - 1]
  if (op === undefined) throw packetError('op', `${code} is not an operation: they are 1 to ${OPS.length}`)
  const transport = view.getUint16(26, true)
  const length = view.getUint16(28, true)
  const left = bytes.length - HEADER
  if (length > left) throw packetError('len', `the transport's header has ${length} bytes, but only ${left} are there`)
  const header = bytes.subarray(HEADER, HEADER + length)
  return {
    source: { cid: view.getBigUint64(0, true), port: view.getUint32(16, true) },
    destination: { cid: view.getBigUint64(8, true), port: view.getUint32(20, true) },
    op,
    ...(transport === VIRTIO && length === VIRTIO_HEADER && { virtio: header }),
    payload: bytes.subarray(HEADER + length),
  }
}

function checkCid(cid: bigint, end: string): bigint {
  if (typeof cid === 'bigint' && cid >= 0n && cid < 1n << 64n) return cid
  throw packetError(`${end}.cid`, 'must be a bigint from 0 to 2^64 - 1')
}

function checkPort(port: number, end: string): number {
  if (Number.isInteger(port) && port >= 0 && port <= 0xffff_ffff) return port
  throw packetError(`${end}.port`, 'must be an integer from 0 to 2^32 - 1')
}

function packetError(subject: string, what: string): TraceError {
  return new TraceError({ code: 'PACKET', subject, what })
}
