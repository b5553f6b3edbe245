import fc from 'fast-check'
import { afterEach, expect, test, vi } from 'vitest'
import { encodeConnect, encodeRequest, FrameDecoder } from './index.js'

const stream = Buffer.concat([
  encodeConnect(),
  encodeRequest({ type: 'ADD_PCI', bus: 1, devfn: 2 }, 'x86_64'),
  encodeRequest({ type: 'DEL_CPU', apicIds: [3] }, 'x86_64'),
])

afterEach(() => void vi.restoreAllMocks())

/** Three messages, and the stream's. */
function expectWhole(frames: Uint8Array[]): void {
  expect(frames.map(({ length }) => length)).toEqual([1024, 1024, 1024])
  expect(Buffer.compare(Buffer.concat(frames), stream)).toBe(0)
}

test('every cut into two gives the same messages', () => {
  for (let at = 0; at <= stream.length; at++) {
    const decoder = new FrameDecoder()
    expectWhole([...decoder.push(stream.subarray(0, at)), ...decoder.push(stream.subarray(at))])
    expect(decoder.pending).toBe(0)
  }
})

test('any chunking gives the same messages, byte by byte too', () => {
  const byByte = new FrameDecoder()
  expectWhole([...stream].flatMap((byte) => byByte.push(Uint8Array.of(byte))))
  fc.assert(
    fc.property(fc.array(fc.nat(stream.length)), (cuts) => {
      const decoder = new FrameDecoder()
      const at = [0, ...cuts.sort((a, b) => a - b), stream.length]
      expectWhole(at.slice(1).flatMap((end, i) => decoder.push(stream.subarray(at[i]!, end))))
    }),
  )
})

test('pending tells of an unfinished message', () => {
  const decoder = new FrameDecoder()
  expect(decoder.push(stream.subarray(0, 1030))).toHaveLength(1)
  expect(decoder.pending).toBe(6)
})

test('a message stays as it was when the chunk or the decoder goes on', () => {
  const decoder = new FrameDecoder(4)
  const chunk = Uint8Array.of(1, 2, 3, 4, 5)
  const [frame] = decoder.push(chunk)
  chunk.fill(9)
  decoder.push(Uint8Array.of(6, 7, 8, 9))
  expect(frame).toEqual(Uint8Array.of(1, 2, 3, 4))
})

test('a message inside a chunk is copied once, a message that began earlier in its pieces', () => {
  // What is copied is read from the chunk: a message that is whole by one copy, the rest by its pieces.
  const { set, subarray } = Uint8Array.prototype
  const copies = { pieces: 0, whole: 0 }
  vi.spyOn(Uint8Array.prototype, 'set').mockImplementation(function (this: Uint8Array, from, at) {
    copies.pieces += from.length
    set.call(this, from, at)
  })
  vi.spyOn(Uint8Array.prototype, 'subarray').mockImplementation(function (this: Uint8Array, ...range) {
    const part = subarray.apply(this, range)
    if (part.length === 4) copies.whole += part.length
    return part
  })
  try {
    const decoder = new FrameDecoder(4)
    expect(decoder.push(new Uint8Array(42))).toHaveLength(10)
    expect(decoder.push(new Uint8Array(41))).toHaveLength(10)
    expect(decoder.pending).toBe(3)
  } finally {
    vi.restoreAllMocks()
  }
  // 42 = 10 messages and 2 bytes; 41 = 2 bytes that end one, 9 messages, 3 bytes.
  expect(copies).toEqual({ pieces: 2 + 2 + 3, whole: 40 + 36 })
})

test.each([0, -1, 1.5, Number.NaN])('a size of %d is refused', (size) => {
  expect(() => new FrameDecoder(size)).toThrow(expect.objectContaining({ code: 'ARGUMENT', path: 'size' }))
})

test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 30 + 1, '8', null])(
  'a message of %s bytes is refused',
  (size) => {
    expect(() => new FrameDecoder(size as number)).toThrow(/^size: must be an integer from 1 to 1073741824, got /)
  },
)

test.each([undefined, null, 'text', [1, 2], new ArrayBuffer(8)])(
  'a chunk that is not bytes is refused and changes nothing',
  (chunk) => {
    const decoder = new FrameDecoder(2)
    decoder.push(Uint8Array.of(1))
    expect(() => decoder.push(chunk as never)).toThrow(/^chunk: must be a Uint8Array, got /)
    expect(decoder.push(Uint8Array.of(2))).toEqual([Uint8Array.of(1, 2)])
  },
)
