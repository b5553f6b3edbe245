import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isTraceError } from '../error.js'
import { decodeVsockPacket, encodeVsockPacket, type VsockPacket } from './vsock-packet.js'

const packet: VsockPacket = {
  source: { cid: 2n, port: 0x40000001 },
  destination: { cid: 0x0102030405060708n, port: 219 },
  op: 'payload',
  payload: Buffer.from('hi'),
}

test('the bytes are those of vsockmon', () => {
  expect(Buffer.from(encodeVsockPacket(packet)).toString('hex')).toBe(
    ['0200000000000000', '0807060504030201', '01000040', 'db000000', '0400', '0100', '0000', '0000', '6869'].join(''),
  )
  const virtio = Buffer.alloc(44, 7)
  const bytes = Buffer.from(encodeVsockPacket({ ...packet, op: 'connect', virtio }))
  expect(bytes.subarray(24, 34).toString('hex')).toBe('010002002c0000000707')
  expect(bytes).toHaveLength(32 + 44 + 2)
})

test('what is encoded decodes to the same', () => {
  const end = fc.record({ cid: fc.bigInt(0n, (1n << 64n) - 1n), port: fc.nat(0xffff_ffff) })
  const any = fc.record(
    {
      source: end,
      destination: end,
      op: fc.constantFrom('connect' as const, 'disconnect' as const, 'control' as const, 'payload' as const),
      virtio: fc.uint8Array({ minLength: 44, maxLength: 44 }),
      payload: fc.uint8Array({ maxLength: 100 }),
    },
    { requiredKeys: ['source', 'destination', 'op', 'payload'] },
  )
  fc.assert(fc.property(any, (each) => void expect(decodeVsockPacket(encodeVsockPacket(each))).toEqual(each)))
})

test('a header of another transport is left out of the payload', () => {
  const bytes = encodeVsockPacket({ ...packet, payload: Buffer.from('headhi') })
  bytes[26] = 3
  bytes[28] = 4
  expect(Buffer.from(decodeVsockPacket(bytes).payload).toString()).toBe('hi')
})

test('a header of a transport that is longer than its packet is refused', () => {
  const bytes = encodeVsockPacket(packet)
  bytes[28] = 3
  expect(() => decodeVsockPacket(bytes)).toThrow(
    expect.objectContaining({ code: 'PACKET', subject: 'len', what: "the transport's header has 3 bytes, but only 2 are there" }),
  )
})

test('any bytes give a packet or a TraceError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 90 }), fc.nat(5), (bytes, op) => {
      if (bytes.length > 25) bytes.set([op, 0], 24)
      try {
        decodeVsockPacket(bytes)
      } catch (error) {
        expect(isTraceError(error) && error.code).toBe('PACKET')
      }
    }),
  )
})

test.each<[Partial<VsockPacket>, string]>([
  [{ virtio: new Uint8Array(43) }, 'virtio'],
  [{ op: 'reset' as never }, 'op'],
  [{ source: { cid: -1n, port: 1 } }, 'source.cid'],
  [{ destination: { cid: 1n, port: 2 ** 32 } }, 'destination.port'],
])('%o is refused', (change, subject) => {
  expect(() => encodeVsockPacket({ ...packet, ...change })).toThrow(expect.objectContaining({ code: 'PACKET', subject }))
})
