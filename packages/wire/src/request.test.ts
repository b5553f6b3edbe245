import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type Arch,
  checkConnect,
  declaredLength,
  decodeReply,
  decodeRequest,
  encodeReply,
  encodeRequest,
  isWireError,
  MESSAGE_SIZE,
  overwriteReply,
  type Request,
  readHeader,
  type WireErrorCode,
} from './index.js'

const MAX = 2n ** 64n - 1n

function refusal(fn: () => unknown): { code: WireErrorCode; path: string; message: string } {
  try {
    fn()
  } catch (error) {
    if (!isWireError(error)) throw error
    return { code: error.code, path: error.path, message: error.message }
  }
  throw new Error('was not refused')
}

const cpu = (type: 'ADD_CPU' | 'DEL_CPU') =>
  fc.record({
    type: fc.constant(type),
    apicIds: fc.uniqueArray(fc.nat(255), { minLength: 1, maxLength: 255 }),
    apicVersion: fc.nat(255),
  })
const window = (minIrq: number) =>
  fc
    .tuple(
      fc.constantFrom('ADD_MMIO' as const, 'DEL_MMIO' as const),
      fc.bigInt(0n, MAX),
      fc.bigInt(1n, MAX + 1n),
      fc.integer({ min: minIrq, max: 0xffff_ffff }),
    )
    .map(([type, base, size, irq]) => ({ type, base, size: size > MAX + 1n - base ? MAX + 1n - base : size, irq }))
    .filter(({ size }) => size <= MAX)
const pci = fc.record({ type: fc.constantFrom('ADD_PCI' as const, 'DEL_PCI' as const), bus: fc.nat(255), devfn: fc.nat(255) })
const raw = fc.record({
  type: fc.constant('RAW' as const),
  messageType: fc.oneof(fc.constantFrom(3, 4), fc.integer({ min: 9, max: 0xffff_ffff })),
  load: fc.uint8Array({ maxLength: 1008 }),
})
const requests: Record<Arch, fc.Arbitrary<Request>> = {
  x86_64: fc.oneof(cpu('ADD_CPU'), cpu('DEL_CPU'), window(1), pci, raw),
  aarch64: fc.oneof(
    fc.record({ type: fc.constantFrom('ADD_CPU' as const, 'DEL_CPU' as const), count: fc.integer({ min: 1, max: 255 }) }),
    window(0),
    pci,
    raw,
  ),
}

describe.each(['x86_64', 'aarch64'] as const)('%s', (arch) => {
  test('what is encoded decodes to the same', () => {
    fc.assert(
      fc.property(requests[arch], (request) => {
        expect(decodeRequest(encodeRequest(request, arch), arch)).toEqual(request)
      }),
    )
  })

  test("into a caller's buffer gives the same 1024 bytes, whatever stood there", () => {
    fc.assert(
      fc.property(requests[arch], fc.uint8Array({ minLength: 1024, maxLength: 1024 }), (request, into) => {
        const fresh = encodeRequest(request, arch)
        expect(encodeRequest(request, arch, into)).toBe(into)
        expect(into).toEqual(fresh)
      }),
    )
  })

  test('decoding anything gives a request or a WireError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1100 }), fc.nat(12), fc.boolean(), (bytes, type, plausible) => {
        if (plausible && bytes.length > 12) bytes.set([0x00, 0x01, 0x4d, 0x44, bytes[4]!, 0, 0, 0, type, 0, 0, 0])
        try {
          decodeRequest(bytes, arch)
        } catch (error) {
          expect(isWireError(error)).toBe(true)
        }
      }),
      { numRuns: 500 },
    )
  })
})

test.each<[string, unknown, Arch, string, string]>([
  ['count 0', { type: 'ADD_CPU', apicIds: [] }, 'x86_64', 'apicIds', 'must name 1 to 255 vCPUs, got 0'],
  ['count 256', { type: 'ADD_CPU', apicIds: Array.from({ length: 256 }, (_, i) => i) }, 'x86_64', 'apicIds', 'got 256'],
  ['a duplicate', { type: 'DEL_CPU', apicIds: [3, 2, 3] }, 'x86_64', 'apicIds[2]', 'APIC id 3 is already named at apicIds[0]'],
  ['an id of 256', { type: 'ADD_CPU', apicIds: [1, 256] }, 'x86_64', 'apicIds[1]', 'must be an integer from 0 to 255, got 256'],
  ['an id of -1', { type: 'ADD_CPU', apicIds: [-1] }, 'x86_64', 'apicIds[0]', 'got -1'],
  ['an id that is not an integer', { type: 'ADD_CPU', apicIds: [1.5] }, 'x86_64', 'apicIds[0]', 'got 1.5'],
  ['an APIC version of 256', { type: 'ADD_CPU', apicIds: [1], apicVersion: 256 }, 'x86_64', 'apicVersion', 'got 256'],
  ['a count on x86_64', { type: 'ADD_CPU', count: 1 }, 'x86_64', 'apicIds', 'x86_64 names vCPUs by APIC id'],
  ['both on x86_64', { type: 'ADD_CPU', apicIds: [1], count: 1 }, 'x86_64', 'apicIds', 'must be given, and count left out'],
  ['count 0 on aarch64', { type: 'DEL_CPU', count: 0 }, 'aarch64', 'count', 'must be an integer from 1 to 255, got 0'],
  ['count 256 on aarch64', { type: 'DEL_CPU', count: 256 }, 'aarch64', 'count', 'got 256'],
  ['ids on aarch64', { type: 'DEL_CPU', apicIds: [1] }, 'aarch64', 'count', 'aarch64 takes a number'],
  ['an empty window', { type: 'ADD_MMIO', base: 0n, size: 0n, irq: 5 }, 'x86_64', 'size', 'must be from 1 to 2^64 − 1, got 0'],
  [
    'a window that ends after 2^64',
    { type: 'ADD_MMIO', base: MAX, size: 2n, irq: 5 },
    'x86_64',
    'size',
    'ends after 2^64, the most that fits is 1',
  ],
  [
    'a base of 2^64',
    { type: 'ADD_MMIO', base: MAX + 1n, size: 1n, irq: 5 },
    'x86_64',
    'base',
    'must be from 0 to 2^64 − 1, got 0x10000000000000000',
  ],
  ['a base below 0', { type: 'ADD_MMIO', base: -1n, size: 1n, irq: 5 }, 'x86_64', 'base', 'got -1'],
  ['a number for an address', { type: 'ADD_MMIO', base: 4096, size: 1n, irq: 5 }, 'x86_64', 'base', 'must be a bigint'],
  [
    'irq 0 on x86_64',
    { type: 'ADD_MMIO', base: 0n, size: 1n, irq: 0 },
    'x86_64',
    'irq',
    'must be from 1 to 4294967295: an x86_64 kernel takes 0 for no interrupt and answers EINVAL',
  ],
  ['irq 2^32', { type: 'ADD_MMIO', base: 0n, size: 1n, irq: 2 ** 32 }, 'aarch64', 'irq', 'got 4294967296'],
  ['bus 256', { type: 'ADD_PCI', bus: 256, devfn: 0 }, 'x86_64', 'bus', 'must be an integer from 0 to 255, got 256'],
  ['devfn 256', { type: 'ADD_PCI', bus: 0, devfn: 256 }, 'x86_64', 'devfn', 'got 256'],
  [
    'a load of 1009 bytes',
    { type: 'RAW', messageType: 3, load: new Uint8Array(1009) },
    'x86_64',
    'load',
    'at most 1008 bytes, got 1009 bytes',
  ],
  [
    'a message type of 2^32',
    { type: 'RAW', messageType: 2 ** 32, load: new Uint8Array() },
    'x86_64',
    'messageType',
    'got 4294967296',
  ],
  [
    'a hole in the ids',
    { type: 'DEL_CPU', apicIds: Object.assign(new Array(3), { 0: 3, 2: 2 }) },
    'x86_64',
    'apicIds[1]',
    'got undefined',
  ],
  ['an unknown type', { type: 'ADD_MEM' }, 'x86_64', 'type', 'got "ADD_MEM"'],
  ['null', null, 'x86_64', 'request', 'must be an object, got null'],
  ['an unknown architecture', { type: 'ADD_PCI', bus: 0, devfn: 0 }, 'riscv64' as Arch, 'arch', "must be 'x86_64' or 'aarch64'"],
])('%s is refused and the buffer left alone', (_name, request, arch, path, message) => {
  const into = new Uint8Array(MESSAGE_SIZE).fill(0xa5)
  const refused = refusal(() => encodeRequest(request as Request, arch, into))
  expect(refused).toMatchObject({ code: 'ARGUMENT', path })
  expect(refused.message).toContain(message)
  expect(into.every((byte) => byte === 0xa5)).toBe(true)
})

test('a window may end at the very last byte', () => {
  const request = { type: 'ADD_MMIO', base: MAX - 0xfffn, size: 0x1000n, irq: 5 } as const
  expect(decodeRequest(encodeRequest(request, 'x86_64'), 'x86_64')).toEqual(request)
})

test('irq 0 is an interrupt on aarch64', () => {
  const request = { type: 'ADD_MMIO', base: 0n, size: 1n, irq: 0 } as const
  expect(decodeRequest(encodeRequest(request, 'aarch64'), 'aarch64')).toEqual(request)
})

test('a shorter buffer is refused, of a longer one the first 1024 bytes are used', () => {
  const request = { type: 'ADD_PCI', bus: 1, devfn: 2 } as const
  expect(refusal(() => encodeRequest(request, 'x86_64', new Uint8Array(1023)))).toMatchObject({ code: 'LENGTH', path: 'into' })
  const long = new Uint8Array(1030).fill(7)
  const message = encodeRequest(request, 'x86_64', long)
  expect(message).toEqual(encodeRequest(request, 'x86_64'))
  expect(message.buffer).toBe(long.buffer)
  expect([...long.subarray(1024)]).toEqual([7, 7, 7, 7, 7, 7])
})

test.each([Uint8Array, Buffer])('what is decoded from a %o does not change with it', (kind) => {
  const load = Uint8Array.of(1, 2, 3)
  const bytes = kind.from(encodeRequest({ type: 'RAW', messageType: 3, load }, 'x86_64'))
  const request = decodeRequest(bytes, 'x86_64')
  bytes.fill(0)
  expect(request).toEqual({ type: 'RAW', messageType: 3, load })
})

describe('decoding is as lenient as the kernel', () => {
  const message = (type: number, size: number, ...load: number[]) => {
    const bytes = encodeRequest({ type: 'RAW', messageType: type, load: Uint8Array.from(load) }, 'x86_64')
    bytes[4] = size & 0xff
    bytes[5] = size >> 8
    return bytes
  }

  test('an id named twice, an id of 0 and a count of 0 are handed on', () => {
    expect(decodeRequest(message(2, 258, 2, 0x14, 3, 3), 'x86_64')).toMatchObject({ apicIds: [3, 3] })
    expect(decodeRequest(message(2, 258, 0, 0x14, 3), 'x86_64')).toMatchObject({ apicIds: [] })
    expect(decodeRequest(message(2, 1, 0), 'aarch64')).toEqual({ type: 'DEL_CPU', count: 0 })
  })

  test('msg_size counts for MMIO alone', () => {
    expect(decodeRequest(message(1, 7, 1, 0x14, 3), 'x86_64')).toMatchObject({ apicIds: [3] })
    expect(decodeRequest(message(7, 9, 1, 2), 'x86_64')).toEqual({ type: 'ADD_PCI', bus: 1, devfn: 2 })
    expect(refusal(() => decodeRequest(message(5, 23), 'x86_64'))).toMatchObject({ code: 'SIZE', path: 'msg_size' })
    expect(refusal(() => decodeRequest(message(9, 1009), 'x86_64'))).toMatchObject({ code: 'SIZE', path: 'msg_size' })
  })

  test('an aarch64-shaped request reads as APIC id 0 on x86_64, an x86-shaped one as a count on aarch64', () => {
    expect(decodeRequest(encodeRequest({ type: 'ADD_CPU', count: 1 }, 'aarch64'), 'x86_64')).toMatchObject({ apicIds: [0] })
    expect(decodeRequest(encodeRequest({ type: 'DEL_CPU', apicIds: [7, 9] }, 'x86_64'), 'aarch64')).toEqual({
      type: 'DEL_CPU',
      count: 2,
    })
  })

  test('CONNECT, a wrong magic and a wrong length are refused', () => {
    expect(refusal(() => decodeRequest(message(0, 0), 'x86_64'))).toMatchObject({ code: 'TYPE' })
    const bytes = message(5, 24)
    bytes[3] = 0
    expect(refusal(() => decodeRequest(bytes, 'x86_64'))).toMatchObject({ code: 'MAGIC', path: 'magic_version' })
    expect(refusal(() => decodeRequest(message(5, 24).subarray(0, 1023), 'x86_64'))).toMatchObject({ code: 'LENGTH' })
    expect(refusal(() => decodeRequest(new Uint8Array(1025), 'x86_64'))).toMatchObject({ code: 'LENGTH' })
  })
})

/** An array that counts how often one of its elements is read. */
function counted<T>(array: T[]): { array: T[]; reads(): number } {
  let reads = 0
  const get = (target: T[], key: string | symbol, receiver: unknown) => {
    if (typeof key === 'string' && /^\d/.test(key)) reads++
    return Reflect.get(target, key, receiver)
  }
  return { array: new Proxy(array, { get }), reads: () => reads }
}

test('each APIC id is looked at once or twice, however many there are', () => {
  const { array, reads } = counted(Array.from({ length: 255 }, (_, i) => i))
  encodeRequest({ type: 'ADD_CPU', apicIds: array }, 'x86_64')
  expect(reads()).toBeLessThanOrEqual(2 * 255)
})

test.each<[string, unknown]>([
  ['undefined', undefined],
  ['null', null],
  ['a number', 5],
  ['a text of that length', 'x'.repeat(1024)],
  ['an array', []],
  ['an array of other numbers', new Uint16Array(1024)],
])('%s is refused by every reader', (_what, value) => {
  const bytes = value as never
  for (const read of [
    () => decodeRequest(bytes, 'x86_64'),
    () => decodeReply(bytes, 'x86_64'),
    () => checkConnect(bytes),
    () => readHeader(bytes),
    () => declaredLength(bytes),
  ])
    expect(read).toThrow(
      expect.objectContaining({
        name: 'WireError',
        code: 'ARGUMENT',
        path: 'bytes',
        message: expect.stringContaining('Uint8Array'),
      }),
    )
})

test.each([0, 4, 16, 20, 30])('a load that lies in the buffer it is written to, at %i, goes out as it was', (at) => {
  const load = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
  const buffer = () => {
    const into = new Uint8Array(1024)
    into.set(load, at)
    return [into, into.subarray(at, at + load.length)] as const
  }
  const [into, own] = buffer()
  expect(encodeRequest({ type: 'RAW', messageType: 3, load: own }, 'x86_64', into).slice(16, 24)).toEqual(load)
  for (const encode of [encodeReply, overwriteReply]) {
    const [into, own] = buffer()
    expect(encode({ type: 'RAW', messageType: 3, result: 0, load: own }, 'x86_64', into).slice(20, 28)).toEqual(load)
  }
})

test('an error shows what was given in a few characters', () => {
  const given = (value: unknown) => {
    try {
      encodeRequest({ type: 'ADD_PCI', bus: value as never, devfn: 0 }, 'x86_64')
    } catch (error) {
      return (error as Error).message
    }
    return undefined
  }
  expect(given(() => 'a long function')).toBe('bus: must be an integer from 0 to 255, got a function')
  expect(given('x'.repeat(100_000))!.length).toBeLessThan(120)
})
