import { readFileSync } from 'node:fs'
import { encodeReply, encodeRequest } from '@upcall/wire'
import { expect, test } from 'vitest'
import { type Decoded, MessageReader, type ReaderOptions, titleOf } from './message.js'

interface Vector {
  name: string
  arch: 'x86_64' | 'aarch64' | 'any'
  direction: 'request' | 'reply'
  type: string
  fields: Record<string, unknown>
  length: number
  hex: string
}

const file = new URL('../../wire/vectors/upcall-wire.json', import.meta.url)
const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as { vectors: Vector[] }

function read(bytes: Uint8Array, options: Partial<ReaderOptions> = {}): Decoded {
  return new MessageReader({ fallbackArch: 'x86_64', ...options }).read({
    kind: 'message',
    offset: 0,
    bytes,
    given: bytes.length,
  })
}

function bytesOf({ hex, length }: Vector): Uint8Array {
  const bytes = new Uint8Array(length)
  bytes.set(Buffer.from(hex, 'hex'))
  return bytes
}

test.each(vectors.map((vector) => [vector.name, vector] as const))('%s', (_name, vector) => {
  const { direction, type, fields, arch } = vector
  const decoded = read(bytesOf(vector), { fallbackArch: arch === 'any' ? 'x86_64' : arch })
  // The directions need no telling: every vector is recognised for what it is.
  expect(decoded).toMatchObject({ offset: 0, direction, type })
  if (!('type' in decoded)) throw new Error('no message')
  if (decoded.direction === 'reply') {
    expect(decoded.result).toBe(fields.result)
    if (fields.apicIdIndex !== undefined) expect(decoded.apicIdIndex).toBe(fields.apicIdIndex)
    if (fields.cpuId !== undefined) expect(decoded.cpuId).toBe(fields.cpuId)
  } else if ('base' in decoded.operation) {
    expect(decoded.operation).toMatchObject({ base: fields.base, size: fields.size, irq: fields.irq })
  } else if ('apicIds' in decoded.operation) {
    expect(decoded.operation.apicIds).toEqual(fields.apicIds)
  }
})

test('CPU requests tell the architecture, also to the replies after them', () => {
  const reader = new MessageReader({ fallbackArch: 'x86_64' })
  const piece = (bytes: Uint8Array) => ({ kind: 'message' as const, offset: 0, bytes, given: 1024 })
  expect(reader.read(piece(encodeReply({ type: 'ADD_CPU', result: 0, apicIdIndex: 4 }, 'x86_64')))).toMatchObject({
    apicIdIndex: 4,
  })
  expect(reader.read(piece(encodeRequest({ type: 'ADD_CPU', count: 4 }, 'aarch64')))).toMatchObject({ operation: { count: 4 } })
  expect(reader.read(piece(encodeReply({ type: 'ADD_CPU', result: 0, cpuId: 4 }, 'aarch64')))).toMatchObject({ cpuId: 4 })
  expect(read(encodeRequest({ type: 'ADD_CPU', count: 4 }, 'aarch64'), { arch: 'x86_64' })).toMatchObject({
    operation: { apicIds: [0, 0, 0, 0] },
  })
})

test('types without a codec are taken for what came before them, unless a result stands there', () => {
  const raw = encodeRequest({ type: 'RAW', messageType: 9, load: Uint8Array.of(1, 2) }, 'x86_64')
  expect(read(raw)).toMatchObject({ direction: 'request', type: 9, operation: { op: 'request', type: 9, load: '0102' } })
  expect(read(raw, { direction: 'reply' })).toMatchObject({ direction: 'reply', type: 9 })
  const refused = encodeReply({ type: 'RAW', messageType: 9, result: -1, load: new Uint8Array(0) }, 'x86_64')
  expect(read(refused)).toMatchObject({ direction: 'reply', result: -1, errnoName: 'EPERM' })
})

test('a message that breaks the protocol is told with what is wrong', () => {
  const mmio = encodeRequest({ type: 'ADD_MMIO', base: 0n, size: 1n, irq: 5 }, 'x86_64')
  mmio[4] = 23
  expect(read(mmio)).toMatchObject({ error: { code: 'SIZE', message: expect.stringContaining('request ADD_MMIO msg_size') } })
  expect(read(encodeReply({ type: 'CONNECT', result: -1 }, 'x86_64'), { direction: 'request' })).toMatchObject({
    error: { code: 'TYPE' },
  })
})

test('the lines for people', () => {
  const line = (bytes: Uint8Array) => titleOf(read(bytes))
  expect(line(encodeRequest({ type: 'ADD_MMIO', base: 0xd0000000n, size: 0x1000n, irq: 5 }, 'x86_64'))).toBe(
    'ADD_MMIO 0xd0000000+0x1000 irq 5',
  )
  expect(line(encodeRequest({ type: 'DEL_CPU', apicIds: [7, 6, 0, 1, 2] }, 'x86_64'))).toBe('DEL_CPU  ids 7,6,0-2')
  expect(line(encodeReply({ type: 'ADD_CPU', result: 0, apicIdIndex: 1 }, 'x86_64'))).toBe('ADD_CPU  0, 1 CPU acted on')
  expect(line(encodeReply({ type: 'DEL_PCI', result: -19 }, 'x86_64'))).toBe('DEL_PCI  -19 ENODEV')
  expect(line(encodeReply({ type: 'DEL_CPU', result: 1 }, 'x86_64'))).toBe('DEL_CPU  +1')
})
