import type { Arch, Request } from '@upcall/wire'
import { describe, expect, test } from 'vitest'
import { describeRequest, formatOperation, type Operation, parseBdf, parseOperation, parseU64 } from './index.js'

const pairs: [Arch, Request, Operation, string][] = [
  ['x86_64', { type: 'ADD_CPU', apicIds: [2, 3] }, { op: 'cpu.add', apicIds: [2, 3] }, 'cpu.add 2,3'],
  [
    'x86_64',
    { type: 'DEL_CPU', apicIds: [3], apicVersion: 16 },
    { op: 'cpu.remove', apicIds: [3], apicVersion: 16 },
    'cpu.remove 3',
  ],
  ['aarch64', { type: 'DEL_CPU', count: 2 }, { op: 'cpu.remove', count: 2 }, 'cpu.remove count 2'],
  [
    'x86_64',
    { type: 'ADD_MMIO', base: 0xffff_ffff_ffff_f000n, size: 0x1000n, irq: 5 },
    { op: 'mmio.add', base: '0xfffffffffffff000', size: '0x1000', irq: 5 },
    'mmio.add 0xfffffffffffff000+0x1000 irq 5',
  ],
  ['x86_64', { type: 'DEL_PCI', bus: 1, devfn: 255 }, { op: 'pci.remove', bdf: '01:1f.7' }, 'pci.remove 01:1f.7'],
  [
    'x86_64',
    { type: 'RAW', messageType: 3, load: Uint8Array.of(1, 0xfe) },
    { op: 'request', type: 3, load: '01fe' },
    'request type 3',
  ],
  ['x86_64', { type: 'RAW', messageType: 9, load: new Uint8Array() }, { op: 'request', type: 9 }, 'request type 9'],
]

test.each(pairs.map(([arch, request, operation, words]) => ({ arch, request, operation, words })))(
  '$words',
  ({ arch, request, operation, words }) => {
    expect(formatOperation(request)).toEqual(operation)
    expect(parseOperation(operation, arch)).toEqual(request)
    expect(parseOperation(JSON.stringify(operation), arch)).toEqual(request)
    expect(describeRequest(request)).toBe(words)
  },
)

test('addresses may be decimal or numbers', () => {
  expect(parseOperation({ op: 'mmio.add', base: '4096', size: 512, irq: 5 }, 'x86_64')).toMatchObject({ base: 4096n, size: 512n })
})

test.each<[unknown, Arch, string, string]>([
  ['{', 'x86_64', 'operation', 'is not JSON'],
  ['[]', 'x86_64', 'operation', 'must be a JSON object with an "op", got []'],
  [{}, 'x86_64', 'op', 'must be one of cpu.add, cpu.remove, mmio.add, mmio.remove, pci.add, pci.remove and request, got nothing'],
  [{ op: 'toString' }, 'x86_64', 'op', 'got "toString"'],
  [{ op: 'cpu.add', count: 1 }, 'x86_64', 'count', 'is not a key of cpu.add on x86_64, which takes apicIds, apicVersion'],
  [{ op: 'cpu.add', apicIds: [1] }, 'aarch64', 'apicIds', 'is not a key of cpu.add on aarch64, which takes count'],
  [{ op: 'cpu.add' }, 'x86_64', 'apicIds', 'must be an array of APIC ids, got nothing'],
  [{ op: 'cpu.add', apicIds: [1, '2'] }, 'x86_64', 'apicIds[1]', 'must be a number, got "2"'],
  [{ op: 'mmio.add', base: '0x', size: 1, irq: 5 }, 'x86_64', 'base', 'must be an unsigned integer'],
  [{ op: 'mmio.add', base: -1, size: 1, irq: 5 }, 'x86_64', 'base', 'got -1'],
  [{ op: 'mmio.add', base: 2 ** 53, size: 1, irq: 5 }, 'x86_64', 'base', 'got 9007199254740992'],
  [{ op: 'mmio.add', base: 0, size: 1 }, 'x86_64', 'irq', 'must be a number, got nothing'],
  [{ op: 'pci.add', bdf: 5 }, 'x86_64', 'bdf', 'must be a PCI address'],
  [{ op: 'request', type: 3, load: 'abc' }, 'x86_64', 'load', 'must be pairs of hexadecimal digits, got "abc"'],
  [{ op: 'request', type: 3, load: 'z'.repeat(99) }, 'x86_64', 'load', `got "${'z'.repeat(40)}…"`],
  [{ op: 'request', type: 3, load: 'ab'.repeat(1009) }, 'x86_64', 'load', 'must have at most 1008 bytes, got 1009'],
])('%j on %s is refused, naming %s', (value, arch, path, message) => {
  expect(() => parseOperation(value, arch)).toThrow(
    expect.objectContaining({ name: 'WireError', path, message: expect.stringContaining(message) }),
  )
})

describe('an error shows what was given, whatever it is', () => {
  const deep = `${'['.repeat(30_000)}${']'.repeat(30_000)}`
  const circular: Record<string, unknown> = {}
  circular.itself = circular

  test.each<[string, unknown, string]>([
    ['an address that is a bigint', { op: 'mmio.add', base: 4096n, size: 1, irq: 5 }, 'base: must be an unsigned integer'],
    ['a number that is a bigint', { op: 'mmio.add', base: 1, size: 1, irq: 5n }, 'irq: must be a number, got 5n'],
    ['an id that is a bigint', { op: 'cpu.add', apicIds: [1n] }, 'apicIds[0]: must be a number, got 1n'],
    ['no operation but a bigint', 5n, 'operation: must be a JSON object with an "op", got 5n'],
    ['a function', { op: 'pci.add', bdf: () => {} }, 'bdf: must be a PCI address such as "00:05.0", got a function'],
    ['what contains itself', { op: circular }, 'op: must be one of'],
    ['arrays deeper than a stack', deep, 'operation: must be a JSON object with an "op", got an array of 1'],
    ['an op deeper than a stack', `{"op":${deep}}`, 'op: must be one of'],
  ])('%s', (_what, value, message) => {
    expect(() => parseOperation(value, 'x86_64')).toThrow(
      expect.objectContaining({ name: 'WireError', message: expect.stringContaining(message) }),
    )
  })

  test('in a few characters', () => {
    const given = (fn: () => unknown) => {
      try {
        fn()
      } catch (error) {
        return (error as Error).message
      }
      return ''
    }
    const long = 'x'.repeat(100_000)
    expect(given(() => parseOperation({ op: long }, 'x86_64'))).toContain(`got "${'x'.repeat(40)}…"`)
    expect(given(() => parseU64(long, 'base'))).toContain(`got "${'x'.repeat(40)}…"`)
    expect(given(() => parseBdf(long))).toContain(`got "${'x'.repeat(40)}…"`)
    expect(given(() => parseBdf(5n as never))).toContain('must look like 00:05.0 or 0000:00:05.0, got 5n')
  })
})

test.each([undefined, 'x86', 'arm64', null])('an architecture that is %o is refused, not taken for x86_64', (arch) => {
  expect(() => parseOperation({ op: 'pci.add', bdf: '00:05.0' }, arch as never)).toThrow(
    expect.objectContaining({
      name: 'WireError',
      path: 'arch',
      message: expect.stringContaining("must be 'x86_64' or 'aarch64'"),
    }),
  )
})

test.each<[string, unknown, string]>([
  ['nothing', undefined, 'request'],
  ['another type', { type: 'PING' }, 'type'],
  ['a bus beyond a byte', { type: 'ADD_PCI', bus: 256, devfn: 8 }, 'bus'],
])('what is not a request (%s) has no JSON form', (_what, request, path) => {
  for (const form of [formatOperation, describeRequest])
    expect(() => form(request as never)).toThrow(expect.objectContaining({ name: 'WireError', path }))
})
