import { concatenate } from '@upcall/foundation/bytes'
import { protocolError } from './errors.js'
import type { MemoryRegion } from './memory.js'
import type { XenRegion } from './xen-region.js'

/**
 * vhost-user messages (QEMU, docs/interop/vhost-user.rst): a 12-byte header (u32 request, u32 flags, u32 size), then `size` bytes of
 * payload, in the host's byte order, which is little-endian here. Descriptors travel beside the first byte.
 */
export const MESSAGE_HEADER_SIZE = 12
/** No message that is understood here is longer: a configuration space is at most 256 bytes, a memory table 8 regions. */
export const MAX_PAYLOAD_SIZE = 4096
/** In one SET_MEM_TABLE, and so descriptors beside one message. */
export const MAX_REGIONS = 8
/**
 * Regions in all, by ADD_MEM_REG. The kernel's vhost has 509 (KVM's 512 slots but for three), and so has rust-vmm; QEMU asks for 512 at
 * most.
 */
export const MAX_MEMORY_SLOTS = 509

export const Request = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  RESET_DEVICE: 34,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
} as const
export type RequestName = keyof typeof Request

const names: ReadonlyMap<number, RequestName> = new Map<number, RequestName>(
  Object.entries(Request).map(([name, value]) => [value, name as RequestName]),
)

/** Undefined for a request that is not known here. */
export const requestOf = (request: number): RequestName | undefined => names.get(request)

/** `SET_VRING_KICK`, or `request 99`. */
export const requestName = (request: number): string => requestOf(request) ?? `request ${request}`

const VERSION = 1
const FLAG_VERSION_MASK = 3
const FLAG_REPLY = 4
const FLAG_NEED_REPLY = 8
/** In the u64 of SET_VRING_KICK, CALL and ERR: the ring, and whether a descriptor comes along. */
export const RING_MASK = 0xff
export const NO_DESCRIPTOR = 0x100

export interface MessageHeader {
  readonly request: number
  readonly reply: boolean
  readonly needReply: boolean
  /** Bytes of payload after the header. */
  readonly size: number
}

/** In a memory table. With XEN_MMAP it is `XEN_REGION_SIZE`. */
export const REGION_SIZE = 32

/** A region as the negotiated layout describes it: with XEN_MMAP, each is a `XenRegion`. */
export type DescribedRegion = MemoryRegion | XenRegion

/** A message without a payload. */
export type BareRequest =
  | 'GET_FEATURES'
  | 'GET_PROTOCOL_FEATURES'
  | 'SET_OWNER'
  | 'RESET_OWNER'
  | 'GET_QUEUE_NUM'
  | 'RESET_DEVICE'
  | 'GET_MAX_MEM_SLOTS'

/** A message from the front end. Features are 64-bit masks; addresses are in the front end's address space. */
export type FrontEndMessage =
  | { [Name in BareRequest]: { request: Name } }[BareRequest]
  | { request: 'SET_FEATURES' | 'SET_PROTOCOL_FEATURES'; features: bigint }
  | { request: 'SET_MEM_TABLE'; regions: DescribedRegion[] }
  | { request: 'ADD_MEM_REG' | 'REM_MEM_REG'; region: DescribedRegion }
  | { request: 'SET_VRING_NUM' | 'SET_VRING_BASE' | 'GET_VRING_BASE' | 'SET_VRING_ENABLE'; ring: number; value: number }
  | { request: 'SET_VRING_ADDR'; ring: number; flags: number; desc: number; used: number; avail: number; log: number }
  | { request: 'SET_VRING_KICK' | 'SET_VRING_CALL' | 'SET_VRING_ERR'; ring: number; descriptor: boolean }
  | { request: 'GET_CONFIG' | 'SET_CONFIG'; offset: number; flags: number; bytes: Uint8Array }

/** An answer of the back end. `value` of a u64 reply holds features, or 0 / 1 for an acknowledgement. */
export type BackEndReply =
  | { request: number; u64: bigint }
  | { request: number; ring: number; value: number }
  | { request: number; offset: number; flags: number; bytes: Uint8Array }

export function decodeMessageHeader(bytes: Uint8Array): MessageHeader {
  const view = viewOf(bytes)
  const request = view.getUint32(0, true)
  const flags = view.getUint32(4, true)
  const size = view.getUint32(8, true)
  if ((flags & FLAG_VERSION_MASK) !== VERSION) {
    throw protocolError(requestName(request), `the protocol version is ${flags & FLAG_VERSION_MASK}, not ${VERSION}`)
  }
  if (size > MAX_PAYLOAD_SIZE) {
    throw protocolError(requestName(request), `the payload has ${size} bytes, and at most ${MAX_PAYLOAD_SIZE} are allowed`)
  }
  return { request, reply: (flags & FLAG_REPLY) !== 0, needReply: (flags & FLAG_NEED_REPLY) !== 0, size }
}

/** The payload of a vring state: what most messages about a ring hold, and the answer to GET_VRING_BASE. */
export const vringState = (ring: number, value: number): Uint8Array =>
  words(8, (view) => {
    view.setUint32(0, ring, true)
    view.setUint32(4, value, true)
  })

/** The payload of a configuration message, and of its answer. */
export function config({ offset, flags, bytes }: { offset: number; flags: number; bytes: Uint8Array }): Uint8Array {
  const head = words(12, (view) => {
    view.setUint32(0, offset, true)
    view.setUint32(4, bytes.length, true)
    view.setUint32(8, flags, true)
  })
  return concatenate([head, bytes])
}

/** A whole message. */
export function frame(request: number, payload: Uint8Array, { reply = false, needReply = false } = {}): Uint8Array {
  const flags = VERSION | (reply ? FLAG_REPLY : 0) | (needReply ? FLAG_NEED_REPLY : 0)
  const header = words(MESSAGE_HEADER_SIZE, (view) => {
    view.setUint32(0, request, true)
    view.setUint32(4, flags, true)
    view.setUint32(8, payload.length, true)
  })
  return concatenate([header, payload])
}

/** `size` bytes, as `fill` leaves them. */
export function words(size: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(size)
  fill(viewOf(bytes))
  return bytes
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** A 64-bit address as a number. An address beyond 2^53 is rounded, and refused where regions are checked. */
export const address = (view: DataView, at: number): number =>
  view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true)
