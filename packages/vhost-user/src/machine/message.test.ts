import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeReply, encodeFrontEndMessage } from '../front-end/message.js'
import { DeviceError } from './errors.js'
import { decodeFrontEndMessage, encodeReply } from './message.js'
import { decodeMessageHeader, type FrontEndMessage, MAX_PAYLOAD_SIZE, MESSAGE_HEADER_SIZE, Request } from './message-format.js'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** Laid out by hand after the vhost-user specification; each line is what QEMU puts on the wire. */
const golden: [FrontEndMessage, string][] = [
  [{ request: 'GET_FEATURES' }, '010000000100000000000000'],
  [{ request: 'SET_FEATURES', features: 0x1_7000_0000n }, '020000000100000008000000' + '0000007001000000'],
  [{ request: 'SET_OWNER' }, '030000000100000000000000'],
  [
    {
      request: 'SET_MEM_TABLE',
      regions: [{ guestAddress: 0x1_0000_0000, size: 0x2000_0000, userAddress: 0x7f12_3456_7000, fileOffset: 0xc_0000 }],
    },
    '050000000100000028000000' +
      '0100000000000000' +
      '0000000001000000' +
      '0000002000000000' +
      '00705634127f0000' +
      '00000c0000000000',
  ],
  [{ request: 'GET_QUEUE_NUM' }, '110000000100000000000000'],
  [{ request: 'RESET_DEVICE' }, '220000000100000000000000'],
  [{ request: 'GET_MAX_MEM_SLOTS' }, '240000000100000000000000'],
  [
    {
      request: 'ADD_MEM_REG',
      region: { guestAddress: 0x1_0000_0000, size: 0x1000_0000, userAddress: 0x7f85_dfff_f000, fileOffset: 0x20_0000 },
    },
    '250000000100000028000000' +
      '0000000000000000' +
      '0000000001000000' +
      '0000001000000000' +
      '00f0ffdf857f0000' +
      '0000200000000000',
  ],
  [
    {
      request: 'REM_MEM_REG',
      region: { guestAddress: 0x1_0000_0000, size: 0x1000_0000, userAddress: 0x7f85_dfff_f000, fileOffset: 0 },
    },
    '260000000100000028000000' +
      '0000000000000000' +
      '0000000001000000' +
      '0000001000000000' +
      '00f0ffdf857f0000' +
      '0000000000000000',
  ],
  [{ request: 'SET_VRING_NUM', ring: 1, value: 128 }, '080000000100000008000000' + '0100000080000000'],
  [
    {
      request: 'SET_VRING_ADDR',
      ring: 0,
      flags: 0,
      desc: 0x7f00_0000_1000,
      used: 0x7f00_0000_3000,
      avail: 0x7f00_0000_2000,
      log: 0,
    },
    '090000000100000028000000' +
      '0000000000000000' +
      '00100000007f0000' +
      '00300000007f0000' +
      '00200000007f0000' +
      '0000000000000000',
  ],
  [{ request: 'SET_VRING_BASE', ring: 0, value: 7 }, '0a0000000100000008000000' + '0000000007000000'],
  [{ request: 'GET_VRING_BASE', ring: 1, value: 0 }, '0b0000000100000008000000' + '0100000000000000'],
  [{ request: 'SET_VRING_KICK', ring: 1, descriptor: true }, '0c0000000100000008000000' + '0100000000000000'],
  [{ request: 'SET_VRING_CALL', ring: 0, descriptor: false }, '0d0000000100000008000000' + '0001000000000000'],
  [{ request: 'SET_VRING_ENABLE', ring: 1, value: 1 }, '120000000100000008000000' + '0100000001000000'],
  [
    { request: 'GET_CONFIG', offset: 0, flags: 0, bytes: new Uint8Array(8) },
    '180000000100000014000000' + '000000000800000000000000' + '0000000000000000',
  ],
]

describe('messages of the front end', () => {
  test.each(golden)('%o', (message, expected) => {
    const bytes = encodeFrontEndMessage(message)
    expect(hex(bytes)).toBe(expected)
    const header = decodeMessageHeader(bytes.subarray(0, MESSAGE_HEADER_SIZE))
    expect(header).toEqual({
      request: Request[message.request],
      reply: false,
      needReply: false,
      size: bytes.length - MESSAGE_HEADER_SIZE,
    })
    expect(decodeFrontEndMessage(header, bytes.subarray(MESSAGE_HEADER_SIZE))).toEqual(message)
  })

  test('need-reply is bit 3', () => {
    const bytes = encodeFrontEndMessage({ request: 'SET_OWNER' }, { needReply: true })
    expect(hex(bytes)).toBe('030000000900000000000000')
    expect(decodeMessageHeader(bytes).needReply).toBe(true)
  })

  test('another protocol version is refused', () => {
    expect(() => decodeMessageHeader(Buffer.from('010000000200000000000000', 'hex'))).toThrow(
      /GET_FEATURES: the protocol version is 2, not 1/,
    )
  })

  test('a payload beyond the cap is refused before anything is read', () => {
    expect(() => decodeMessageHeader(Buffer.from('0500000001000000ffffffff', 'hex'))).toThrow(/payload has 4294967295 bytes/)
  })

  test('more than eight regions are refused', () => {
    const payload = Buffer.from('0900000000000000', 'hex')
    expect(() => decodeFrontEndMessage({ request: 5, reply: false, needReply: false, size: 8 }, payload)).toThrow(
      /9 regions, and at most 8/,
    )
  })

  test('every prefix of every message is refused with PROTOCOL', () => {
    for (const [message] of golden) {
      const payload = encodeFrontEndMessage(message).subarray(MESSAGE_HEADER_SIZE)
      for (let size = 0; size < payload.length; size++) {
        const header = { request: Request[message.request], reply: false, needReply: false, size }
        expect(() => decodeFrontEndMessage(header, payload.subarray(0, size))).toThrow(DeviceError)
      }
    }
  })

  test('any bytes decode or throw DeviceError', () => {
    fc.assert(
      fc.property(fc.nat(45), fc.uint8Array({ maxLength: 300 }), (request, payload) => {
        try {
          decodeFrontEndMessage({ request, reply: false, needReply: false, size: payload.length }, payload)
        } catch (error) {
          expect(error).toBeInstanceOf(DeviceError)
        }
      }),
    )
  })

  test('the cap leaves room for the longest memory table', () => {
    expect(8 + 32 * 8).toBeLessThan(MAX_PAYLOAD_SIZE)
  })
})

describe('replies of the back end', () => {
  test.each([
    [{ request: Request.GET_FEATURES, u64: 0x1_7000_0000n }, '010000000500000008000000' + '0000007001000000'],
    [{ request: Request.GET_VRING_BASE, ring: 1, value: 513 }, '0b0000000500000008000000' + '0100000001020000'],
    [
      { request: Request.GET_CONFIG, offset: 0, flags: 0, bytes: Uint8Array.of(42, 0, 0, 0, 0, 0, 0, 0) },
      '180000000500000014000000' + '000000000800000000000000' + '2a00000000000000',
    ],
  ])('%o', (reply, expected) => {
    const bytes = encodeReply(reply)
    expect(hex(bytes)).toBe(expected)
    const payload = bytes.subarray(MESSAGE_HEADER_SIZE)
    const header = decodeMessageHeader(bytes)
    expect(decodeReply(header, payload)).toEqual(reply)
    for (let size = 0; size < payload.length; size++)
      expect(() => decodeReply({ ...header, size }, payload.subarray(0, size))).toThrow(DeviceError)
  })

  test('a request is not a reply', () => {
    const header = { request: Request.GET_FEATURES, reply: false, needReply: false, size: 8 }
    expect(() => decodeReply(header, new Uint8Array(8))).toThrow(/a request, not a reply/)
  })
})
