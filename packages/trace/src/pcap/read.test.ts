import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { CapturedPacket } from './captured.js'
import { readCapture } from './read.js'
import { PcapWriter } from './writer.js'

/** In chunks of so many bytes. */
async function* chunks(bytes: Uint8Array, size = bytes.length || 1): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function read(bytes: Uint8Array, size?: number): Promise<CapturedPacket[]> {
  const packets: CapturedPacket[] = []
  for await (const packet of readCapture(chunks(bytes, size))) packets.push(packet)
  return packets
}

type Order = 'LE' | 'BE'

function words(order: Order, ...numbers: (number | [number])[]): Buffer {
  // A number in brackets has two bytes.
  return Buffer.concat(
    numbers.map((number) => {
      const bytes = Buffer.alloc(typeof number === 'number' ? 4 : 2)
      const value = typeof number === 'number' ? number : number[0]
      if (order === 'LE') bytes.writeUIntLE(value, 0, bytes.length)
      else bytes.writeUIntBE(value, 0, bytes.length)
      return bytes
    }),
  )
}

function classic(order: Order, magic: number, ...records: Buffer[]): Buffer {
  return Buffer.concat([words(order, magic, [2], [4], 0, 0, 65535, 271), ...records])
}

function record(order: Order, fraction: number, bytes: Buffer, length = bytes.length): Buffer {
  return Buffer.concat([words(order, 1_700_000_000, fraction, length, length), bytes])
}

function block(order: Order, type: number, ...body: Buffer[]): Buffer {
  const content = Buffer.concat(body)
  const padded = Buffer.concat([content, Buffer.alloc((4 - (content.length % 4)) % 4)])
  const length = words(order, padded.length + 12)
  return Buffer.concat([words(order, type), length, padded, length])
}

const section = (order: Order) => block(order, 0x0a0d0d0a, words(order, 0x1a2b3c4d, [1], [0], 0xffff_ffff, 0xffff_ffff))
const option = (order: Order, code: number, value: Buffer) =>
  Buffer.concat([words(order, [code], [value.length]), value, Buffer.alloc((4 - (value.length % 4)) % 4)])
const iface = (order: Order, linkType = 271, ...options: Buffer[]) =>
  block(order, 1, words(order, [linkType], [0], 0), ...options, ...(options.length > 0 ? [words(order, 0)] : []))
const ticks = 1_700_000_000_250_000n
const enhanced = (order: Order, id: number, at: bigint, bytes: Buffer, kept = bytes.length) =>
  block(order, 6, words(order, id, Number(at >> 32n), Number(at & 0xffff_ffffn), kept, bytes.length), bytes)

const hello = Buffer.from('hello')

describe('pcap', () => {
  test.each<[string, Order, number, number, number]>([
    ['little-endian, microseconds', 'LE', 0xa1b2c3d4, 250_000, 250],
    ['big-endian, microseconds', 'BE', 0xa1b2c3d4, 250_000, 250],
    ['little-endian, nanoseconds', 'LE', 0xa1b23c4d, 250_000_000, 250],
    ['big-endian, nanoseconds', 'BE', 0xa1b23c4d, 250_000_000, 250],
  ])('%s', async (_name, order, magic, fraction, ms) => {
    const packets = await read(classic(order, magic, record(order, fraction, hello), record(order, 0, hello)))
    expect(packets.map(({ number, offset }) => [number, offset])).toEqual([
      [1, 24],
      [2, 45],
    ])
    expect(packets[0]).toMatchObject({ time: 1_700_000_000_000 + ms, linkType: 271, length: 5 })
    expect(Buffer.from(packets[0]!.bytes).toString()).toBe('hello')
  })

  test('what is written is read back, to the microsecond', async () => {
    const packet = fc.tuple(fc.integer({ min: 0, max: 4e15 }), fc.uint8Array({ maxLength: 50 }))
    await fc.assert(
      fc.asyncProperty(fc.array(packet, { maxLength: 5 }), fc.integer({ min: 1, max: 40 }), async (packets, size) => {
        const writer = new PcapWriter()
        const file = Buffer.concat([writer.header(), ...packets.map(([us, bytes]) => writer.packet(us / 1000, bytes))])
        const found = await read(file, size)
        expect(found.map(({ bytes }) => Buffer.from(bytes))).toEqual(packets.map(([, bytes]) => Buffer.from(bytes)))
        for (const [i, [us]] of packets.entries()) expect(Math.abs(found[i]!.time! * 1000 - us)).toBeLessThan(1)
      }),
    )
  })

  test('a length that lies ends the reading, and names the place', async () => {
    const file = classic('LE', 0xa1b2c3d4, record('LE', 0, hello), record('LE', 0, hello, 0x7fff_ffff))
    await expect(read(file)).rejects.toMatchObject({
      code: 'CAPTURE',
      subject: 'at byte 45',
      what: expect.stringContaining('packet 2'),
    })
  })

  test('a file that ends early, because it is still written: what there is, and what is missing', async () => {
    const file = classic('LE', 0xa1b2c3d4, record('LE', 0, hello), record('LE', 0, hello))
    expect(await read(file.subarray(0, -2))).toMatchObject([
      { number: 1 },
      { number: 2, problem: 'the file ends after 3 of its 5 bytes' },
    ])
    expect(await read(file.subarray(0, 50))).toMatchObject([{ number: 1 }, { problem: 'the file ends in its header' }])
    await expect(read(file.subarray(0, 20))).rejects.toMatchObject({ code: 'CAPTURE' })
  })

  test('what is not a capture is refused', async () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from('abc'), Buffer.from('a text, and not a capture')])
      await expect(read(bytes)).rejects.toMatchObject({ code: 'CAPTURE', what: 'neither pcap nor pcapng begins like this' })
    await expect(read(Buffer.concat([words('LE', 0xa1b2c3d4, [3], [0]), Buffer.alloc(16)]))).rejects.toThrow(
      'version 3.0 of pcap',
    )
  })
})

describe('pcapng', () => {
  test.each<Order>(['LE', 'BE'])('%s: enhanced and simple packets, other blocks between them', async (order) => {
    const file = Buffer.concat([
      section(order),
      iface(order),
      iface(order, 1),
      block(order, 0xbad, Buffer.alloc(100)),
      enhanced(order, 0, ticks, hello),
      enhanced(order, 1, ticks, hello),
      block(order, 3, words(order, hello.length), hello),
    ])
    for (const size of [1, 7, file.length]) {
      const packets = await read(file, size)
      expect(packets).toMatchObject([
        { number: 1, time: 1_700_000_000_250, linkType: 271, length: 5 },
        { number: 2, linkType: 1 },
        { number: 3, linkType: 271, time: undefined },
      ])
      for (const { bytes } of packets) expect(Buffer.from(bytes).toString()).toBe('hello')
    }
  })

  test.each<[string, Buffer[], bigint, number]>([
    ['nanoseconds', [option('LE', 9, Buffer.of(9))], 1_500_000_000n, 1500],
    ['a power of two', [option('LE', 9, Buffer.of(0x80 | 10))], 1536n, 1500],
    ['seconds', [option('LE', 9, Buffer.of(0))], 2n, 2000],
    ['the finest there is', [option('LE', 9, Buffer.of(127))], 0xffff_ffff_ffff_ffffn, 0],
    ['an offset', [option('LE', 14, Buffer.from([100, 0, 0, 0, 0, 0, 0, 0]))], 1_000_000n, 101_000],
    ['an option that lies about its length', [words('LE', [9], [0xffff])], 1_000_000n, 1000],
  ])('times: %s', async (_name, options, at, time) => {
    const file = Buffer.concat([section('LE'), iface('LE', 271, ...options), enhanced('LE', 0, at, hello)])
    expect((await read(file))[0]!.time).toBe(time)
  })

  test('a packet of an interface that does not exist, and one longer than its block, do not stop the others', async () => {
    const file = Buffer.concat([
      ...[section('LE'), iface('LE'), enhanced('LE', 7, ticks, hello)],
      ...[enhanced('LE', 0, ticks, hello, 500), enhanced('LE', 0, ticks, hello)],
    ])
    expect(await read(file)).toMatchObject([
      { problem: 'its interface 7 does not exist', linkType: -1 },
      { problem: 'it has 500 bytes by its header, and only 8 in its block' },
      { linkType: 271 },
    ])
    expect((await read(file))[2]).not.toHaveProperty('problem')
  })

  test('a section in the other byte order begins with no interfaces', async () => {
    const file = Buffer.concat([section('LE'), iface('LE'), section('BE'), enhanced('BE', 0, ticks, hello)])
    expect(await read(file)).toMatchObject([{ problem: 'its interface 0 does not exist' }])
  })

  test.each<[string, Buffer, string]>([
    ['a block of no length', words('LE', 6, 0, 0), 'a block of 0 bytes'],
    ['a length that is not a multiple of 4', words('LE', 6, 33), 'a block of 33 bytes'],
    [
      'two lengths that differ',
      Buffer.concat([words('LE', 0xbad, 16), Buffer.alloc(4), words('LE', 20)]),
      '16 bytes at its beginning, and 20',
    ],
    ['a packet too short for its header', block('LE', 6, Buffer.alloc(4)), 'too short'],
    ['a packet that wants much memory', enhanced('LE', 0, 0n, hello, 0xffff_ffff), 'at most 1048576 are read'],
    ['a version of tomorrow', block('LE', 0x0a0d0d0a, words('LE', 0x1a2b3c4d, [2], [0], 0, 0)), 'version 2 of pcapng'],
    ['no byte order', block('LE', 0x0a0d0d0a, words('LE', 0, [1], [0], 0, 0)), 'byte order'],
  ])('%s is refused where it stands', async (_name, bytes, what) => {
    const start = Buffer.concat([section('LE'), iface('LE')])
    await expect(read(Buffer.concat([start, bytes]))).rejects.toMatchObject({
      code: 'CAPTURE',
      subject: `at byte ${start.length}`,
      what: expect.stringContaining(what),
    })
  })

  test('interfaces without end are refused', async () => {
    const file = Buffer.concat([section('LE'), ...Array.from({ length: 4097 }, () => iface('LE'))])
    await expect(read(file)).rejects.toThrow('more than 4096 interfaces')
  })

  test('an unknown block of any length costs no memory', async () => {
    async function* endless() {
      yield Buffer.concat([section('LE'), words('LE', 0xbad, 0x4000_0000)])
      const zeros = Buffer.alloc(1 << 20)
      for (let i = 0; i < 64; i++) yield zeros
    }
    const before = process.memoryUsage().arrayBuffers
    for await (const _ of readCapture(endless())) throw new Error('there is no packet')
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 << 20)
  })
})

test('damage anywhere gives packets or an error of the capture', async () => {
  const file = Buffer.concat([
    ...[section('LE'), iface('LE', 271, option('LE', 9, Buffer.of(9))), enhanced('LE', 0, ticks, hello)],
    ...[section('BE'), iface('BE'), block('BE', 3, words('BE', 5), hello), enhanced('BE', 0, ticks, hello)],
  ])
  const plain = classic('BE', 0xa1b2c3d4, record('BE', 1, hello), record('BE', 1, hello))
  const hit = fc.tuple(
    fc.constantFrom(file, plain),
    fc.nat(400),
    fc.integer({ min: 0, max: 255 }),
    fc.integer({ min: 1, max: 500 }),
  )
  await fc.assert(
    fc.asyncProperty(hit, async ([original, at, byte, length]) => {
      const bytes = Buffer.from(original.subarray(0, length))
      bytes[at % bytes.length] = byte
      await read(bytes, 16).catch((error) => expect(error).toMatchObject({ code: 'CAPTURE' }))
    }),
    { numRuns: 500 },
  )
})
