import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  checkConnect,
  declaredLength,
  decodeReply,
  encodeConnect,
  encodeReply,
  encodeRequest,
  isWireError,
  overwriteReply,
  type Reply,
  readHeader,
} from './index.js'

const result = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const index = fc.option(fc.integer({ min: 0, max: 0xffff_ffff }), { nil: undefined })
const common = fc.oneof(
  fc.record({ type: fc.constantFrom('ADD_MMIO' as const, 'DEL_MMIO' as const, 'ADD_PCI' as const, 'DEL_PCI' as const), result }),
  fc.record({ type: fc.constant('CONNECT' as const), result }),
  fc.record({
    type: fc.constant('RAW' as const),
    messageType: fc.oneof(fc.constantFrom(3, 4), fc.integer({ min: 9, max: 0xffff_ffff })),
    result,
    load: fc.uint8Array({ maxLength: 1004 }),
  }),
)
const cpu = fc.constantFrom('ADD_CPU' as const, 'DEL_CPU' as const)
const replies: Record<'x86_64' | 'aarch64', fc.Arbitrary<Reply>> = {
  x86_64: fc.oneof(common, fc.record({ type: cpu, result, apicIdIndex: index })),
  aarch64: fc.oneof(common, fc.record({ type: cpu, result, cpuId: index })),
}
/** What is undefined is not there. */
const tidy = (reply: Reply) => Object.fromEntries(Object.entries(reply).filter(([, value]) => value !== undefined))

describe.each(['x86_64', 'aarch64'] as const)('%s', (arch) => {
  test('what is encoded decodes to the same', () => {
    fc.assert(
      fc.property(replies[arch], (reply) => {
        expect(decodeReply(encodeReply(reply, arch), arch)).toEqual(tidy(reply))
      }),
    )
  })

  test('over any earlier message it decodes to the same, and only what it declares is written', () => {
    fc.assert(
      fc.property(replies[arch], fc.uint8Array({ minLength: 1024, maxLength: 1024 }), (reply, into) => {
        const before = into.slice()
        expect(overwriteReply(reply, arch, into)).toBe(into)
        expect(decodeReply(into, arch)).toEqual(tidy(reply))
        const end = declaredLength(into)
        expect(Buffer.compare(into.subarray(end), before.subarray(end))).toBe(0)
        expect(Buffer.compare(into.subarray(0, end), encodeReply(reply, arch).subarray(0, end))).toBe(0)
      }),
    )
  })

  test('decoding anything gives a reply or a WireError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1100 }), fc.nat(12), fc.boolean(), (bytes, type, plausible) => {
        if (plausible && bytes.length > 12) bytes.set([0x00, 0x01, 0x4d, 0x44, bytes[4]!, 0, 0, 0, type, 0, 0, 0])
        try {
          decodeReply(bytes, arch)
        } catch (error) {
          expect(isWireError(error)).toBe(true)
        }
      }),
      { numRuns: 500 },
    )
  })
})

/** A reply whose header declares `size` bytes of load. */
function declaring(type: number, size: number): Uint8Array {
  const bytes = encodeReply({ type: 'RAW', messageType: type, result: 0, load: new Uint8Array() }, 'x86_64')
  bytes[4] = size & 0xff
  bytes[5] = size >> 8
  return bytes
}

test.each([
  [1, 3],
  [1, 8],
  [2, 258],
  [5, 4],
  [8, 1],
  [0, 1],
  [3, 1005],
])('a reply of type %i that declares %i bytes of load is refused', (type, size) => {
  expect(() => decodeReply(declaring(type, size), 'x86_64')).toThrow(expect.objectContaining({ code: 'SIZE', path: 'msg_size' }))
})

test('a reply may declare as much as fits', () => {
  expect(decodeReply(declaring(3, 1004), 'x86_64')).toMatchObject({ load: new Uint8Array(1004) })
  expect(declaredLength(declaring(3, 0xffff))).toBe(1024)
})

test.each([
  [{ type: 'ADD_CPU', result: 2 ** 31 }, 'result'],
  [{ type: 'ADD_CPU', result: 0, apicIdIndex: -1 }, 'apicIdIndex'],
  [{ type: 'ADD_CPU', result: 0, cpuId: 1 }, 'cpuId'],
  [{ type: 'RAW', messageType: 3, result: 0, load: new Uint8Array(1005) }, 'load'],
  [{ type: 'NONE', result: 0 }, 'type'],
])('%j is refused on x86_64, naming %s', (reply, path) => {
  const into = new Uint8Array(1024).fill(0xa5)
  expect(() => encodeReply(reply as Reply, 'x86_64', into)).toThrow(expect.objectContaining({ code: 'ARGUMENT', path }))
  expect(into.every((byte) => byte === 0xa5)).toBe(true)
})

test.each([Uint8Array, Buffer])('what is decoded from a %o does not change with it', (kind) => {
  const load = Uint8Array.of(1, 2, 3)
  const bytes = kind.from(encodeReply({ type: 'RAW', messageType: 3, result: 0, load }, 'x86_64'))
  const reply = decodeReply(bytes, 'x86_64')
  bytes.fill(0)
  expect(reply).toEqual({ type: 'RAW', messageType: 3, result: 0, load })
})

describe('the greeting', () => {
  test('stale bytes after the header do not matter', () => {
    const bytes = encodeConnect()
    bytes.fill(0xff, 16)
    expect(() => checkConnect(bytes)).not.toThrow()
  })

  test.each([
    [0, 'MAGIC', 'magic_version'],
    [4, 'SIZE', 'msg_size'],
    [8, 'TYPE', 'msg_type'],
    [12, 'FLAGS', 'msg_flags'],
  ])('a wrong byte at %i is refused: %s', (at, code, path) => {
    const bytes = encodeConnect()
    bytes[at] = 1
    expect(() => checkConnect(bytes)).toThrow(expect.objectContaining({ code, path }))
  })

  test('one byte too few is refused', () => {
    expect(() => checkConnect(encodeConnect().subarray(0, 1023))).toThrow(expect.objectContaining({ code: 'LENGTH' }))
  })
})

test('a header is read as it stands', () => {
  const bytes = encodeRequest({ type: 'RAW', messageType: 0xffff_fffe, load: new Uint8Array(7) }, 'x86_64')
  bytes[15] = 0x80
  expect(readHeader(bytes)).toEqual({ magic: 0x444d0100, size: 7, messageType: 0xffff_fffe, flags: 0x8000_0000 })
  expect(() => readHeader(bytes.subarray(0, 15))).toThrow(expect.objectContaining({ code: 'LENGTH' }))
})
