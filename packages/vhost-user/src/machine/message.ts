import { protocolError } from './errors.js'
import type { MemoryRegion } from './memory.js'

/**
 * vhost-user messages (QEMU, docs/interop/vhost-user.rst): a 12-byte header (u32 request, u32 flags, u32 size), then `size` bytes of
 * payload, in the host's byte order, which is little-endian here. Descriptors travel beside the first byte.
 */
export const MESSAGE_HEADER_SIZE = 12
/** No message that is understood here is longer: a configuration space is at most 256 bytes, a memory table 8 regions. */
export const MAX_PAYLOAD_SIZE = 4096
export const MAX_REGIONS = 8

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
  SET_VRING_ENABLE: 18,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
} as const
type RequestName = keyof typeof Request

const names = new Map<number, RequestName>(Object.entries(Request).map(([name, value]) => [value, name as RequestName]))

/** `SET_VRING_KICK`, or `request 99`. */
export const requestName = (request: number): string => names.get(request) ?? `request ${request}`

const VERSION = 1
const FLAG_VERSION_MASK = 3
const FLAG_REPLY = 4
const FLAG_NEED_REPLY = 8
/** In the u64 of SET_VRING_KICK, CALL and ERR: the ring, and whether a descriptor comes along. */
const RING_MASK = 0xff
const NO_DESCRIPTOR = 0x100

export interface MessageHeader {
  readonly request: number
  readonly reply: boolean
  readonly needReply: boolean
  /** Bytes of payload behind the header. */
  readonly size: number
}

/** A message from the front end. Features are 64-bit masks; addresses are in the front end's address space. */
export type FrontEndMessage =
  | { request: 'GET_FEATURES' | 'GET_PROTOCOL_FEATURES' | 'SET_OWNER' | 'RESET_OWNER' }
  | { request: 'SET_FEATURES' | 'SET_PROTOCOL_FEATURES'; features: bigint }
  | { request: 'SET_MEM_TABLE'; regions: MemoryRegion[] }
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

/** Decodes a front end's payload. Throws `PROTOCOL` for an unknown request or a payload of the wrong size. */
export function decodeFrontEndMessage(header: MessageHeader, payload: Uint8Array): FrontEndMessage {
  const request = names.get(header.request)
  if (request === undefined) throw protocolError(requestName(header.request), 'this back end does not offer it')
  const view = viewOf(payload)
  const expect = (size: number): void => {
    if (payload.length < size) throw protocolError(request, `the payload has ${payload.length} bytes, not ${size}`)
  }
  switch (request) {
    case 'GET_FEATURES':
    case 'GET_PROTOCOL_FEATURES':
    case 'SET_OWNER':
    case 'RESET_OWNER':
      return { request }
    case 'SET_FEATURES':
    case 'SET_PROTOCOL_FEATURES':
      expect(8)
      return { request, features: view.getBigUint64(0, true) }
    case 'SET_MEM_TABLE': {
      expect(8)
      const count = view.getUint32(0, true)
      if (count > MAX_REGIONS) throw protocolError(request, `there are ${count} regions, and at most ${MAX_REGIONS} are allowed`)
      expect(8 + 32 * count)
      const regions = Array.from({ length: count }, (_, i) => {
        const at = 8 + 32 * i
        return {
          guestAddress: address(view, at),
          size: address(view, at + 8),
          userAddress: address(view, at + 16),
          fileOffset: address(view, at + 24),
        }
      })
      return { request, regions }
    }
    case 'SET_VRING_NUM':
    case 'SET_VRING_BASE':
    case 'GET_VRING_BASE':
    case 'SET_VRING_ENABLE':
      expect(8)
      return { request, ring: view.getUint32(0, true), value: view.getUint32(4, true) }
    case 'SET_VRING_ADDR':
      expect(40)
      return {
        request,
        ring: view.getUint32(0, true),
        flags: view.getUint32(4, true),
        desc: address(view, 8),
        used: address(view, 16),
        avail: address(view, 24),
        log: address(view, 32),
      }
    case 'SET_VRING_KICK':
    case 'SET_VRING_CALL':
    case 'SET_VRING_ERR': {
      expect(8)
      const low = view.getUint32(0, true)
      return { request, ring: low & RING_MASK, descriptor: (low & NO_DESCRIPTOR) === 0 }
    }
    case 'GET_CONFIG':
    case 'SET_CONFIG': {
      expect(12)
      const size = view.getUint32(4, true)
      expect(12 + size)
      return { request, offset: view.getUint32(0, true), flags: view.getUint32(8, true), bytes: payload.slice(12, 12 + size) }
    }
  }
}

/** The bytes of a front end's message: what a test double of a VMM sends. */
export function encodeFrontEndMessage(message: FrontEndMessage, { needReply = false } = {}): Uint8Array {
  const payload = frontEndPayload(message)
  return frame(Request[message.request], VERSION | (needReply ? FLAG_NEED_REPLY : 0), payload)
}

function frontEndPayload(message: FrontEndMessage): Uint8Array {
  switch (message.request) {
    case 'GET_FEATURES':
    case 'GET_PROTOCOL_FEATURES':
    case 'SET_OWNER':
    case 'RESET_OWNER':
      return new Uint8Array(0)
    case 'SET_FEATURES':
    case 'SET_PROTOCOL_FEATURES':
      return words(8, (view) => view.setBigUint64(0, message.features, true))
    case 'SET_MEM_TABLE':
      return words(8 + 32 * message.regions.length, (view) => {
        view.setUint32(0, message.regions.length, true)
        for (const [i, region] of message.regions.entries()) {
          const fields = [region.guestAddress, region.size, region.userAddress, region.fileOffset]
          for (const [j, field] of fields.entries()) view.setBigUint64(8 + 32 * i + 8 * j, BigInt(field), true)
        }
      })
    case 'SET_VRING_NUM':
    case 'SET_VRING_BASE':
    case 'GET_VRING_BASE':
    case 'SET_VRING_ENABLE':
      return state(message.ring, message.value)
    case 'SET_VRING_ADDR':
      return words(40, (view) => {
        view.setUint32(0, message.ring, true)
        view.setUint32(4, message.flags, true)
        const fields = [message.desc, message.used, message.avail, message.log]
        for (const [i, field] of fields.entries()) view.setBigUint64(8 + 8 * i, BigInt(field), true)
      })
    case 'SET_VRING_KICK':
    case 'SET_VRING_CALL':
    case 'SET_VRING_ERR':
      return words(8, (view) => view.setUint32(0, message.ring | (message.descriptor ? 0 : NO_DESCRIPTOR), true))
    case 'GET_CONFIG':
    case 'SET_CONFIG':
      return config(message)
  }
}

export function encodeReply(reply: BackEndReply): Uint8Array {
  const payload =
    'u64' in reply
      ? words(8, (view) => view.setBigUint64(0, reply.u64, true))
      : 'ring' in reply
        ? state(reply.ring, reply.value)
        : config(reply)
  return frame(reply.request, VERSION | FLAG_REPLY, payload)
}

const state = (ring: number, value: number): Uint8Array =>
  words(8, (view) => {
    view.setUint32(0, ring, true)
    view.setUint32(4, value, true)
  })

function config({ offset, flags, bytes }: { offset: number; flags: number; bytes: Uint8Array }): Uint8Array {
  const payload = words(12 + bytes.length, (view) => {
    view.setUint32(0, offset, true)
    view.setUint32(4, bytes.length, true)
    view.setUint32(8, flags, true)
  })
  payload.set(bytes, 12)
  return payload
}

function frame(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const message = words(MESSAGE_HEADER_SIZE + payload.length, (view) => {
    view.setUint32(0, request, true)
    view.setUint32(4, flags, true)
    view.setUint32(8, payload.length, true)
  })
  message.set(payload, MESSAGE_HEADER_SIZE)
  return message
}

function words(size: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(size)
  fill(viewOf(bytes))
  return bytes
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** A 64-bit address as a number; one beyond 2^53 is rounded up there and refused by whoever checks regions. */
const address = (view: DataView, at: number): number => view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true)
