import { readFileSync } from 'node:fs'
import {
  type Arch,
  checkConnect,
  decodeReply,
  decodeRequest,
  encodeConnect,
  encodeReply,
  encodeRequest,
  isWireError,
} from '@upcall/wire'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { explainMessage, type MessageField } from './explain.js'
import type { MessageKind } from './message.js'

interface Vector {
  name: string
  arch: Arch | 'any'
  direction: MessageKind
  length: number
  hex: string
}

const file = new URL('../../wire/vectors/upcall-wire.json', import.meta.url)
const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as { vectors: Vector[] }

function expectEveryByteOnce(fields: MessageField[], length: number): void {
  let at = 0
  for (const field of fields) {
    expect(field.offset).toBe(at)
    at += field.length
    expect(field.meaning).toMatch(/[.]$/)
  }
  expect(at).toBe(length)
}

const short = (fields: MessageField[]) => fields.slice(4).map(({ name, offset, value }) => `${offset} ${name} ${value}`)

test.each(vectors.map((vector) => [vector.name, vector] as const))(
  '%s: each byte is explained, and nothing is wrong',
  (_name, vector) => {
    const bytes = new Uint8Array(vector.length)
    bytes.set(Buffer.from(vector.hex, 'hex'))
    const fields = explainMessage(bytes, { direction: vector.direction, arch: vector.arch === 'any' ? 'x86_64' : vector.arch })
    expectEveryByteOnce(fields, 1024)
    expect(fields.filter(({ wrong }) => wrong !== undefined)).toEqual([])
  },
)

describe('the fields of', () => {
  const request = { direction: 'request' } as const
  const reply = { direction: 'reply' } as const

  test('a header', () => {
    const fields = explainMessage(encodeConnect(), { ...reply, arch: 'x86_64' })
    expect(fields.map(({ name, offset, value }) => `${offset} ${name} ${value}`)).toEqual([
      '0 magic_version 0x444d0100',
      '4 msg_size 0',
      '8 msg_type CONNECT (0)',
      '12 msg_flags 0x00000000',
      '16 padding 1008 bytes of zeros',
    ])
  })

  test.each([
    [
      'ADD_CPU, x86_64',
      explainMessage(encodeRequest({ type: 'ADD_CPU', apicIds: [4, 5] }, 'x86_64'), { ...request, arch: 'x86_64' }),
      [
        '16 count 2',
        '17 apic_ver 0x14',
        '18 apic_ids 4,5',
        '20 unused apic_ids 254 bytes of zeros',
        '274 padding 750 bytes of zeros',
      ],
    ],
    [
      'DEL_CPU, aarch64',
      explainMessage(encodeRequest({ type: 'DEL_CPU', count: 3 }, 'aarch64'), { ...request, arch: 'aarch64' }),
      ['16 count 3', '17 padding 1007 bytes of zeros'],
    ],
    [
      'ADD_MMIO',
      explainMessage(encodeRequest({ type: 'ADD_MMIO', base: 0xd0000000n, size: 0x1000n, irq: 5 }, 'x86_64'), {
        ...request,
        arch: 'x86_64',
      }),
      [
        '16 mmio_base 0xd0000000',
        '24 mmio_size 0x1000',
        '32 mmio_irq 5',
        '36 alignment 4 bytes of zeros',
        '40 padding 984 bytes of zeros',
      ],
    ],
    [
      'DEL_PCI',
      explainMessage(encodeRequest({ type: 'DEL_PCI', bus: 0, devfn: 0x29 }, 'x86_64'), { ...request, arch: 'x86_64' }),
      ['16 busno 0x00', '17 devfn 0x29', '18 padding 1006 bytes of zeros'],
    ],
    [
      'a type without a layout',
      explainMessage(encodeRequest({ type: 'RAW', messageType: 9, load: Uint8Array.of(1, 2) }, 'x86_64'), {
        ...request,
        arch: 'x86_64',
      }),
      ['16 load 01 02', '18 padding 1006 bytes of zeros'],
    ],
    [
      'a CPU reply, x86_64',
      explainMessage(encodeReply({ type: 'ADD_CPU', result: 0, apicIdIndex: 2 }, 'x86_64'), { ...reply, arch: 'x86_64' }),
      ['16 ret 0', '20 apic_index 2', '24 padding 1000 bytes of zeros'],
    ],
    [
      'a CPU reply, aarch64',
      explainMessage(encodeReply({ type: 'ADD_CPU', result: 0, cpuId: 4 }, 'aarch64'), { ...reply, arch: 'aarch64' }),
      ['16 ret 0', '20 cpu_id 4', '24 padding 1000 bytes of zeros'],
    ],
    [
      'a refusal',
      explainMessage(encodeReply({ type: 'DEL_PCI', result: -19 }, 'x86_64'), { ...reply, arch: 'x86_64' }),
      ['16 ret -19 ENODEV', '20 padding 1004 bytes of zeros'],
    ],
  ])('%s', (_name, fields, expected) => expect(short(fields)).toEqual(expected))

  test('a refusal say why', () => {
    const bytes = encodeReply({ type: 'DEL_PCI', result: -19 }, 'x86_64')
    expect(explainMessage(bytes, { ...reply, arch: 'x86_64' })[4]!.meaning).toBe('The guest refused: there is no such device.')
  })

  test('a reply whose buffer had an earlier one say that it is left over', () => {
    const bytes = encodeReply({ type: 'ADD_MMIO', result: 0 }, 'x86_64')
    bytes[21] = 7
    expect(explainMessage(bytes, { ...reply, arch: 'x86_64' }).at(-1)).toMatchObject({
      name: 'stale padding',
      offset: 20,
      value: '1004 bytes, 1 of them not 0',
      meaning: expect.stringContaining('Left over from an earlier message'),
    })
  })

  test('a CPU request that the guest cannot survive say so', () => {
    const bytes = encodeRequest({ type: 'DEL_CPU', apicIds: [3, 2] }, 'x86_64')
    bytes[19] = 3
    expect(explainMessage(bytes, { ...request, arch: 'x86_64' })[6]!.meaning).toContain('3 is named more than once')
  })
})

describe('what is wrong stands at its byte:', () => {
  const wrongOf = (bytes: Uint8Array, direction: MessageKind) =>
    explainMessage(bytes, { direction, arch: 'x86_64' })
      .filter(({ wrong }) => wrong !== undefined)
      .map(({ name, wrong, wrongAt }) => [name, wrongAt, wrong])

  test('a byte of the magic', () => {
    const bytes = encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 0 }, 'x86_64')
    bytes[2] = 0x4e
    expect(wrongOf(bytes, 'request')).toEqual([['magic_version', 2, 'byte 2 is 0x4e and not 0x4d']])
  })

  test('sizes', () => {
    const mmio = encodeRequest({ type: 'ADD_MMIO', base: 0n, size: 1n, irq: 5 }, 'x86_64')
    mmio[4] = 23
    expect(wrongOf(mmio, 'request')).toEqual([['msg_size', 4, '23 is not 24, and the kernel answers -22 (EINVAL)']])
    const cpu = encodeReply({ type: 'ADD_CPU', result: 0, apicIdIndex: 1 }, 'x86_64')
    cpu[4] = 5
    expect(wrongOf(cpu, 'reply')).toEqual([['msg_size', 4, '5 is neither 0 nor 4']])
  })

  test('the flags of the greeting', () => {
    const bytes = encodeConnect()
    bytes[14] = 1
    expect(wrongOf(bytes, 'reply')).toEqual([['msg_flags', 14, 'byte 14 is 0x01 and not 0x00']])
  })

  test('too few bytes, and too many', () => {
    const bytes = encodeConnect()
    expect(wrongOf(bytes.subarray(0, 100), 'reply')).toEqual([['missing', 100, '100 of the 1024 bytes of a message are there']])
    expect(wrongOf(new Uint8Array([...bytes, 1]), 'reply')).toEqual([['excess', 1024, 'a message has 1024 bytes']])
  })
})

test('of any bytes each is explained, and what the codec refuses is wrong', () => {
  const arches: Arch[] = ['x86_64', 'aarch64']
  const message = fc
    .tuple(
      fc.uint8Array({ minLength: 1024, maxLength: 1024 }),
      fc.boolean(),
      fc.nat(11),
      fc.constantFrom(0, 1, 2, 4, 24, 258, 1004, 1008, 1009),
    )
    .map(([bytes, sound, type, size]) => {
      if (sound) bytes.set([0, 1, 0x4d, 0x44, size & 0xff, size >> 8, 0, 0, type, 0, 0, 0, 0, 0, 0, 0])
      return bytes
    })
  fc.assert(
    fc.property(
      message,
      fc.constantFrom(...arches),
      fc.constantFrom<MessageKind>('request', 'reply'),
      (bytes, arch, direction) => {
        const fields = explainMessage(bytes, { direction, arch })
        expectEveryByteOnce(fields, 1024)
        expect(fields.some(({ wrong }) => wrong !== undefined)).toBe(refused(bytes, arch, direction))
      },
    ),
    { numRuns: 500 },
  )
})

function refused(bytes: Uint8Array, arch: Arch, direction: MessageKind): boolean {
  try {
    if (direction === 'request') decodeRequest(bytes, arch)
    else if (decodeReply(bytes, arch).type === 'CONNECT') checkConnect(bytes)
    return false
  } catch (error) {
    expect(isWireError(error)).toBe(true)
    return true
  }
}
