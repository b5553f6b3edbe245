import { concatenate } from '@upcall/foundation/bytes'
import { protocolError } from '../machine/errors.js'
import {
  type BackEndReply,
  config,
  type DescribedRegion,
  type FrontEndMessage,
  frame,
  type MessageHeader,
  NO_DESCRIPTOR,
  REGION_SIZE,
  Request,
  requestName,
  viewOf,
  vringState,
  words,
} from '../machine/message-format.js'
import { isXenRegion, XEN_REGION_SIZE } from '../machine/xen-region.js'

// What a front end (a VMM) writes and reads. The other half is in machine/message.ts.

/** The bytes of a front end's message. */
export function encodeFrontEndMessage(message: FrontEndMessage, { needReply = false } = {}): Uint8Array {
  return frame(Request[message.request], payloadOf(message), { needReply })
}

function payloadOf(message: FrontEndMessage): Uint8Array {
  switch (message.request) {
    case 'GET_FEATURES':
    case 'GET_PROTOCOL_FEATURES':
    case 'SET_OWNER':
    case 'RESET_OWNER':
    case 'GET_QUEUE_NUM':
    case 'RESET_DEVICE':
    case 'GET_MAX_MEM_SLOTS':
      return new Uint8Array(0)
    case 'SET_FEATURES':
    case 'SET_PROTOCOL_FEATURES':
      return words(8, (view) => view.setBigUint64(0, message.features, true))
    case 'SET_MEM_TABLE':
      return concatenate([words(8, (view) => view.setUint32(0, message.regions.length, true)), ...message.regions.map(region)])
    case 'ADD_MEM_REG':
    case 'REM_MEM_REG':
      return concatenate([new Uint8Array(8), region(message.region)])
    case 'SET_VRING_NUM':
    case 'SET_VRING_BASE':
    case 'GET_VRING_BASE':
    case 'SET_VRING_ENABLE':
      return vringState(message.ring, message.value)
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

/** 32 bytes, or 40 for a front end that has negotiated XEN_MMAP. */
function region(described: DescribedRegion): Uint8Array {
  const { guestAddress, size, userAddress, fileOffset } = described
  const isXen = isXenRegion(described)
  return words(isXen ? XEN_REGION_SIZE : REGION_SIZE, (view) => {
    for (const [i, field] of [guestAddress, size, userAddress, fileOffset].entries()) {
      view.setBigUint64(8 * i, BigInt(field), true)
    }
    if (!isXen) return
    view.setUint32(32, described.flags, true)
    view.setUint32(36, described.domain, true)
  })
}

/** Decodes a back end's answer. Throws `PROTOCOL` if it is a request, or too short. */
export function decodeReply({ request, reply, size }: MessageHeader, payload: Uint8Array): BackEndReply {
  const subject = requestName(request)
  if (!reply) throw protocolError(subject, 'the back end sent a request, not a reply')
  const view = viewOf(payload)
  const expect = (bytes: number): void => {
    if (payload.length < bytes) throw protocolError(subject, `the payload of the reply has ${size} bytes, not ${bytes}`)
  }
  switch (request) {
    case Request.GET_VRING_BASE:
      expect(8)
      return { request, ring: view.getUint32(0, true), value: view.getUint32(4, true) }
    case Request.GET_CONFIG: {
      expect(12)
      const length = view.getUint32(4, true)
      expect(12 + length)
      return { request, offset: view.getUint32(0, true), flags: view.getUint32(8, true), bytes: payload.slice(12, 12 + length) }
    }
    default:
      expect(8)
      return { request, u64: view.getBigUint64(0, true) }
  }
}
