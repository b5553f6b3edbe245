/**
 * The virtio-vsock packet header (virtio 1.2, 5.10.6): 44 bytes, little-endian, packed.
 *
 * ```
 * u64 src_cid @0 · u64 dst_cid @8 · u32 src_port @16 · u32 dst_port @20 · u32 len @24
 * u16 type @28 · u16 op @30 · u32 flags @32 · u32 buf_alloc @36 · u32 fwd_cnt @40
 * ```
 */
export const PACKET_HEADER_SIZE = 44

/** VMADDR_CID_HOST. */
export const HOST_CID = 2

/** VIRTIO_VSOCK_TYPE_STREAM. */
export const TYPE_STREAM = 1
/** VIRTIO_VSOCK_TYPE_SEQPACKET. */
export const TYPE_SEQPACKET = 2

/** What a socket is: `SOCK_STREAM` or `SOCK_SEQPACKET`. Both have their ports in common. */
export type SocketType = 'stream' | 'seqpacket'

/** Of a type that is one of the two. */
export const socketType = (code: number): SocketType => (code === TYPE_STREAM ? 'stream' : 'seqpacket')

export const typeCode = (type: SocketType): number => (type === 'stream' ? TYPE_STREAM : TYPE_SEQPACKET)

export const Op = {
  INVALID: 0,
  REQUEST: 1,
  RESPONSE: 2,
  RST: 3,
  SHUTDOWN: 4,
  RW: 5,
  CREDIT_UPDATE: 6,
  CREDIT_REQUEST: 7,
} as const

/** The most payload of a packet that Linux sends, and that its vhost-vsock takes (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE). */
export const LARGEST_PACKET = 64 * 1024

/** Flags of SHUTDOWN: its sender receives no more, or sends no more. */
export const SHUTDOWN_RECEIVE = 1
export const SHUTDOWN_SEND = 2
export const SHUTDOWN_BOTH = SHUTDOWN_RECEIVE | SHUTDOWN_SEND

/** Flags of RW in a SEQPACKET connection: the last packet of a message, and MSG_EOR, which Linux sets only together with it. */
export const SEQ_EOM = 1
export const SEQ_EOR = 2

/** Numbers as on the wire, unsigned. A CID that does not fit 32 bits is given as `Infinity`: no endpoint has it. */
export interface PacketHeader {
  sourceCid: number
  destinationCid: number
  sourcePort: number
  destinationPort: number
  length: number
  type: number
  op: number
  flags: number
  bufferAllocation: number
  forwardCount: number
}

export const emptyHeader = (): PacketHeader => ({
  sourceCid: 0,
  destinationCid: 0,
  sourcePort: 0,
  destinationPort: 0,
  length: 0,
  type: TYPE_STREAM,
  op: Op.INVALID,
  flags: 0,
  bufferAllocation: 0,
  forwardCount: 0,
})

/** Writes the first 44 bytes of `into`. */
export function encodePacketHeader(header: Readonly<PacketHeader>, into: DataView): void {
  into.setUint32(0, header.sourceCid, true)
  into.setUint32(4, 0, true)
  into.setUint32(8, header.destinationCid, true)
  into.setUint32(12, 0, true)
  into.setUint32(16, header.sourcePort, true)
  into.setUint32(20, header.destinationPort, true)
  into.setUint32(24, header.length, true)
  into.setUint16(28, header.type, true)
  into.setUint16(30, header.op, true)
  into.setUint32(32, header.flags, true)
  into.setUint32(36, header.bufferAllocation, true)
  into.setUint32(40, header.forwardCount, true)
}

/** Reads 44 bytes into `header`. It checks nothing: every value is possible. */
export function decodePacketHeader(from: DataView, header: PacketHeader): void {
  header.sourceCid = from.getUint32(4, true) === 0 ? from.getUint32(0, true) : Number.POSITIVE_INFINITY
  header.destinationCid = from.getUint32(12, true) === 0 ? from.getUint32(8, true) : Number.POSITIVE_INFINITY
  header.sourcePort = from.getUint32(16, true)
  header.destinationPort = from.getUint32(20, true)
  header.length = from.getUint32(24, true)
  header.type = from.getUint16(28, true)
  header.op = from.getUint16(30, true)
  header.flags = from.getUint32(32, true)
  header.bufferAllocation = from.getUint32(36, true)
  header.forwardCount = from.getUint32(40, true)
}
