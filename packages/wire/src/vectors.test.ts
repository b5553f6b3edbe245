// The vectors were laid out by a C compiler from the kernel's structs; see vectors/upcall-wire.json.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  type Arch,
  checkConnect,
  decodeReply,
  decodeRequest,
  encodeConnect,
  encodeReply,
  encodeRequest,
  type MessageType,
  type Reply,
  type Request,
} from './index.js'

interface Vector {
  name: string
  arch: Arch | 'any'
  direction: 'request' | 'reply'
  type: keyof typeof MessageType
  fields: Record<string, unknown>
  length: number
  hex: string
}

const { vectors } = JSON.parse(readFileSync(new URL('../vectors/upcall-wire.json', import.meta.url), 'utf8')) as {
  vectors: Vector[]
}

function bytesOf({ hex, length }: Vector): Uint8Array {
  const bytes = new Uint8Array(length)
  bytes.set(Buffer.from(hex, 'hex'))
  return bytes
}

function messageOf({ direction, type, fields }: Vector): Request | Reply {
  const { count, base, size, ...rest } = fields
  const numbers = { ...rest, ...(base !== undefined && { base: BigInt(base as string), size: BigInt(size as string) }) }
  if (direction === 'reply' && type === 'ADD_MEM')
    return { type: 'RAW', messageType: 3, load: new Uint8Array(), ...numbers } as unknown as Reply
  if (direction === 'request' && !('apicIds' in fields) && count !== undefined) return { type, count } as Request
  return { type, ...numbers } as unknown as Request | Reply
}

/** Bytes after the declared load: the message was not laid out from zeros and cannot be encoded again. */
function isStale(vector: Vector): boolean {
  const declared = 20 + Number.parseInt(vector.hex.slice(8, 10), 16)
  return (
    vector.direction === 'reply' &&
    bytesOf(vector)
      .subarray(declared)
      .some((byte) => byte !== 0)
  )
}

const cases = vectors.flatMap((vector) =>
  (vector.arch === 'any' ? (['x86_64', 'aarch64'] as const) : [vector.arch]).map((arch) => ({ vector, arch })),
)

test('there are vectors, stale ones among them', () => {
  expect(vectors.length).toBeGreaterThan(20)
  expect(vectors.filter(isStale).map(({ name }) => name)).toEqual([
    expect.stringContaining('stale index'),
    expect.stringContaining('arm64 refused'),
  ])
})

test.each(cases)('$vector.name ($arch) decodes', ({ vector, arch }) => {
  const decoded = vector.direction === 'request' ? decodeRequest(bytesOf(vector), arch) : decodeReply(bytesOf(vector), arch)
  expect(decoded).toEqual(messageOf(vector))
})

test.each(cases.filter(({ vector }) => !isStale(vector)))('$vector.name ($arch) encodes', ({ vector, arch }) => {
  const message = messageOf(vector)
  const encoded = vector.direction === 'request' ? encodeRequest(message as Request, arch) : encodeReply(message as Reply, arch)
  expect(Buffer.from(encoded).toString('hex')).toBe(Buffer.from(bytesOf(vector)).toString('hex'))
})

test('the Connect vector is the greeting', () => {
  const bytes = bytesOf(vectors.find(({ type }) => type === 'CONNECT')!)
  expect(encodeConnect()).toEqual(bytes)
  expect(() => checkConnect(bytes)).not.toThrow()
})
