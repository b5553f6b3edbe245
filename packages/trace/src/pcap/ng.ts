import type { ByteSource } from './bytes.js'
import { type CapturedPacket, captureError, LONGEST_PACKET } from './captured.js'
import { viewOf } from './classic.js'

// pcapng: blocks of a type and a length. Source: draft-ietf-opsawg-pcapng.

/** The type of a section header, the same in both byte orders. */
export const SECTION_HEADER = 0x0a0d0d0a
const INTERFACE = 1
const OLD_PACKET = 2
const SIMPLE_PACKET = 3
const ENHANCED_PACKET = 6

const BYTE_ORDER = 0x1a2b3c4d
/** Type, length, and the length again at its end. */
const FRAME = 12
/** A section has no more interfaces than this. */
const MOST_INTERFACES = 4096
/** Options of an interface that are looked at. */
const MOST_OPTIONS = 1 << 16

const OPTION_END = 0
const OPTION_TSRESOL = 9
const OPTION_TSOFFSET = 14

interface Interface {
  readonly linkType: number
  readonly snapLength: number
  /** Units of a timestamp in a second. */
  readonly perSecond: bigint
  /** Seconds. */
  readonly timeOffset: bigint
}

interface Block {
  readonly type: number
  readonly offset: number
  /** Bytes between the two lengths that were not read yet. */
  left: number
  readonly length: number
}

/** The packets of a pcapng file of which the first four bytes were read: the type of its first block. */
export async function* readPcapng(source: ByteSource): AsyncGenerator<CapturedPacket> {
  const reader = new Reader(source)
  await reader.section(0)
  for (;;) {
    const packet = await reader.next()
    if (packet === 'end') return
    if (packet !== undefined) yield packet
  }
}

class Reader {
  readonly #source: ByteSource
  #littleEndian = true
  #interfaces: Interface[] = []
  #packets = 0

  constructor(source: ByteSource) {
    this.#source = source
  }

  /** The header of a section, of which the type was read. */
  async section(offset: number): Promise<void> {
    const bytes = await this.#exactly(offset, 12)
    const order = bytes.subarray(4)
    if (viewOf(order).getUint32(0, true) === BYTE_ORDER) this.#littleEndian = true
    else if (viewOf(order).getUint32(0, false) === BYTE_ORDER) this.#littleEndian = false
    else throw captureError(offset, 'the byte order of a pcapng section cannot be told')
    const major = viewOf(bytes).getUint16(8, this.#littleEndian)
    if (major !== 1) throw captureError(offset, `version ${major} of pcapng is not known, only 1`)
    const block = this.#block(SECTION_HEADER, offset, viewOf(bytes).getUint32(0, this.#littleEndian))
    block.left -= 8
    this.#interfaces = []
    await this.#finish(block)
  }

  /** One block. undefined: it was not a packet. */
  async next(): Promise<CapturedPacket | 'end' | undefined> {
    const offset = this.#source.offset
    const type = await this.#source.take(4)
    if (type.length === 0) return 'end'
    if (type.length < 4) return this.#cutOff(offset)
    const number = viewOf(type).getUint32(0, this.#littleEndian)
    if (number === SECTION_HEADER) {
      await this.section(offset)
      return undefined
    }
    const length = await this.#source.take(4)
    if (length.length < 4) return this.#cutOff(offset)
    const block = this.#block(number, offset, viewOf(length).getUint32(0, this.#littleEndian))
    switch (number) {
      case INTERFACE:
        await this.#interface(block)
        break
      case ENHANCED_PACKET:
      case OLD_PACKET:
        return this.#packet(block, number === OLD_PACKET)
      case SIMPLE_PACKET:
        return this.#simple(block)
    }
    await this.#finish(block)
    return undefined
  }

  async #interface(block: Block): Promise<void> {
    if (this.#interfaces.length >= MOST_INTERFACES)
      throw captureError(block.offset, `a section has more than ${MOST_INTERFACES} interfaces`)
    const fixed = await this.#fixed(block, 8)
    const options = await this.#take(block, Math.min(block.left, MOST_OPTIONS))
    const linkType = fixed.getUint16(0, this.#littleEndian)
    const snapLength = fixed.getUint32(4, this.#littleEndian)
    this.#interfaces.push({ linkType, snapLength, ...this.#times(options) })
  }

  /** What the options of an interface say about its timestamps. Options that lie about their length end the list. */
  #times(options: Uint8Array): { perSecond: bigint; timeOffset: bigint } {
    const view = viewOf(options)
    let perSecond = 1_000_000n
    let timeOffset = 0n
    for (let at = 0; at + 4 <= options.length; ) {
      const code = view.getUint16(at, this.#littleEndian)
      const length = view.getUint16(at + 2, this.#littleEndian)
      const value = at + 4
      if (code === OPTION_END || value + length > options.length) break
      if (code === OPTION_TSRESOL && length >= 1) perSecond = resolution(options[value]!)
      if (code === OPTION_TSOFFSET && length >= 8) timeOffset = view.getBigInt64(value, this.#littleEndian)
      at = value + length + ((4 - (length % 4)) % 4)
    }
    return { perSecond, timeOffset }
  }

  async #packet(block: Block, old: boolean): Promise<CapturedPacket> {
    const fixed = await this.#fixed(block, 20)
    const id = old ? fixed.getUint16(0, this.#littleEndian) : fixed.getUint32(0, this.#littleEndian)
    const high = fixed.getUint32(4, this.#littleEndian)
    const ticks = (BigInt(high) << 32n) | BigInt(fixed.getUint32(8, this.#littleEndian))
    const kept = fixed.getUint32(12, this.#littleEndian)
    const length = fixed.getUint32(16, this.#littleEndian)
    return this.#read(block, id, kept, length, ticks)
  }

  async #simple(block: Block): Promise<CapturedPacket> {
    const length = (await this.#fixed(block, 4)).getUint32(0, this.#littleEndian)
    const snapLength = this.#interfaces[0]?.snapLength || LONGEST_PACKET
    return this.#read(block, 0, Math.min(length, snapLength, block.left), length, undefined)
  }

  async #read(block: Block, id: number, kept: number, length: number, ticks: bigint | undefined): Promise<CapturedPacket> {
    const number = ++this.#packets
    const of = this.#interfaces[id]
    if (kept > LONGEST_PACKET)
      throw captureError(block.offset, `packet ${number} has ${kept} bytes by its header; at most ${LONGEST_PACKET} are read`)
    const wanted = Math.min(kept, block.left)
    const bytes = await this.#source.take(wanted)
    block.left -= bytes.length
    const about = { number, offset: block.offset, linkType: of?.linkType ?? -1, length, bytes, time: timeOf(ticks, of) }
    if (bytes.length < wanted) return { ...about, problem: `the file ends after ${bytes.length} of its ${kept} bytes` }
    await this.#finish(block)
    if (kept > wanted) return { ...about, problem: `it has ${kept} bytes by its header, and only ${wanted} in its block` }
    if (of === undefined) return { ...about, problem: `its interface ${id} does not exist` }
    return about
  }

  /** The file ends inside a block: it may still be written. */
  #cutOff(offset: number): CapturedPacket | 'end' {
    const problem = 'the file ends in the header of a block'
    const about = { number: ++this.#packets, offset, time: undefined, linkType: -1, length: 0, bytes: new Uint8Array(0) }
    return { ...about, problem }
  }

  #block(type: number, offset: number, length: number): Block {
    const least = FRAME + (type === SECTION_HEADER ? 16 : 0)
    if (length < least || length % 4 !== 0)
      throw captureError(offset, `a block of ${length} bytes; it has at least ${least}, and a multiple of 4`)
    return { type, offset, length, left: length - FRAME }
  }

  /** The fixed part of a block. */
  async #fixed(block: Block, length: number): Promise<DataView> {
    if (block.left < length) throw captureError(block.offset, `a block of type ${block.type} is too short for what it has to say`)
    return viewOf(await this.#take(block, length))
  }

  async #take(block: Block, length: number): Promise<Uint8Array> {
    const bytes = await this.#exactly(block.offset, length)
    block.left -= length
    return bytes
  }

  /** To the end of the block, whose length stands there again. */
  async #finish(block: Block): Promise<void> {
    const skipped = await this.#source.skip(block.left)
    const again = await this.#source.take(4)
    // A file that is still being written ends anywhere.
    if (skipped < block.left || again.length < 4) return
    const length = viewOf(again).getUint32(0, this.#littleEndian)
    if (length !== block.length)
      throw captureError(block.offset, `a block has ${block.length} bytes at its beginning, and ${length} at its end`)
  }

  async #exactly(offset: number, length: number): Promise<Uint8Array> {
    const bytes = await this.#source.take(length)
    if (bytes.length < length) throw captureError(offset, 'the file ends inside a block')
    return bytes
  }
}

/** The upper bit chooses between powers of 2 and of 10. */
function resolution(byte: number): bigint {
  const exponent = BigInt(byte & 0x7f)
  return (byte & 0x80) === 0 ? 10n ** exponent : 1n << exponent
}

function timeOf(ticks: bigint | undefined, of: Interface | undefined): number | undefined {
  if (ticks === undefined || of === undefined) return undefined
  const nanoseconds = (ticks * 1_000_000_000n) / of.perSecond
  // Together they are more than a number holds exactly.
  return Number(of.timeOffset) * 1000 + Number(nanoseconds / 1_000_000n) + Number(nanoseconds % 1_000_000n) / 1e6
}
