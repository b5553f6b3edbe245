import { protocolError } from './errors.js'
import {
  address,
  type BackEndReply,
  config,
  type DescribedRegion,
  type FrontEndMessage,
  frame,
  MAX_REGIONS,
  type MessageHeader,
  NO_DESCRIPTOR,
  REGION_SIZE,
  RING_MASK,
  requestName,
  requestOf,
  viewOf,
  vringState,
  words,
} from './message-format.js'
import { decodeXenRegion, XEN_REGION_SIZE } from './xen-region.js'

// What a back end reads and writes. The other half is in front-end/message.ts.

/**
 * Decodes a front end's payload. Throws `PROTOCOL` for an unknown request or a payload of the wrong size.
 *
 * @param options xen: XEN_MMAP was negotiated, and regions are longer.
 */
export function decodeFrontEndMessage(header: MessageHeader, payload: Uint8Array, { xen = false } = {}): FrontEndMessage {
  const request = requestOf(header.request)
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
    case 'GET_QUEUE_NUM':
    case 'RESET_DEVICE':
    case 'GET_MAX_MEM_SLOTS':
      return { request }
    case 'SET_FEATURES':
    case 'SET_PROTOCOL_FEATURES':
      expect(8)
      return { request, features: view.getBigUint64(0, true) }
    case 'SET_MEM_TABLE': {
      expect(8)
      const count = view.getUint32(0, true)
      if (count > MAX_REGIONS) throw protocolError(request, `there are ${count} regions, and at most ${MAX_REGIONS} are allowed`)
      const size = regionSize(xen)
      expect(8 + size * count)
      return { request, regions: Array.from({ length: count }, (_, i) => region(view, 8 + size * i, xen)) }
    }
    case 'ADD_MEM_REG':
    case 'REM_MEM_REG':
      // Eight bytes of padding come first.
      expect(8 + regionSize(xen))
      return { request, region: region(view, 8, xen) }
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

const regionSize = (xen: boolean): number => (xen ? XEN_REGION_SIZE : REGION_SIZE)

const region = (view: DataView, at: number, xen: boolean): DescribedRegion =>
  xen
    ? decodeXenRegion(view, at)
    : {
        guestAddress: address(view, at),
        size: address(view, at + 8),
        userAddress: address(view, at + 16),
        fileOffset: address(view, at + 24),
      }

export function encodeReply(reply: BackEndReply): Uint8Array {
  const payload =
    'u64' in reply
      ? words(8, (view) => view.setBigUint64(0, reply.u64, true))
      : 'ring' in reply
        ? vringState(reply.ring, reply.value)
        : config(reply)
  return frame(reply.request, payload, { reply: true })
}
