// What two switches say to each other over a link: a sequence of frames, as bytes. All numbers are little-endian.
//
//   u32 length of the frame, these 8 bytes included · u8 type · 3 bytes of zero · body
//
//   HELLO   u32 magic · u32 version · u32 window: how many bytes of PACKET frames may be on their way
//   GUEST   u32 cid · name of the network that it lives in · u32 count · as many groups
//   GONE    u32 cid
//   PACKET  the header (44 bytes) and the payload, as in a ring
//   TAKEN   u32 bytes of PACKET frames · then for each pair of guests: u32 sender · u32 receiver · u32 cost
//
// A name is u32 count · as many UTF-16 units, 2 bytes each.

import { concatenate } from '@upcall/foundation/bytes'
import { PACKET_HEADER_SIZE } from '../packet.js'

export const FrameType = { HELLO: 1, GUEST: 2, GONE: 3, PACKET: 4, TAKEN: 5 } as const

export const FRAME_HEADER_SIZE = 8
export const PACKET_FRAME_HEADER_SIZE = FRAME_HEADER_SIZE + PACKET_HEADER_SIZE
/** A guest may be in many groups. */
const LARGEST_FRAME = 1 << 20
const MAGIC = 0x6b_6e_72_74
const VERSION = 1

/** What one guest has taken of another's packets, by what they cost while they wait. */
export interface Taken {
  readonly sender: number
  readonly receiver: number
  readonly cost: number
}

export interface Guest {
  readonly cid: number
  /** The network that the guest's device is in. */
  readonly origin: string
  readonly groups: readonly string[]
}

export type Frame =
  | { readonly type: 'hello'; readonly window: number }
  | { readonly type: 'guest'; readonly guest: Guest }
  | { readonly type: 'gone'; readonly cid: number }
  /** Header and payload of a packet. */
  | { readonly type: 'packet'; readonly bytes: Uint8Array }
  | { readonly type: 'taken'; readonly bytes: number; readonly taken: readonly Taken[] }

/** What came is not a frame. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
  constructor(readonly what: string) {
    super(what)
  }
}

export function encodeHello(window: number): Uint8Array {
  return frame(FrameType.HELLO, [MAGIC, VERSION, window])
}

export function encodeGuest({ cid, origin, groups }: Guest): Uint8Array {
  return frame(FrameType.GUEST, [cid, ...name(origin), groups.length, ...groups.flatMap(name)])
}

export function encodeGone(cid: number): Uint8Array {
  return frame(FrameType.GONE, [cid])
}

export function encodeTaken(bytes: number, taken: readonly Taken[]): Uint8Array {
  return frame(FrameType.TAKEN, [bytes, ...taken.flatMap(({ sender, receiver, cost }) => [sender, receiver, cost])])
}

/** Writes the 8 bytes before a packet of `length` bytes, header included. */
export function encodePacketFrame(view: DataView, at: number, length: number): void {
  view.setUint32(at, FRAME_HEADER_SIZE + length, true)
  view.setUint32(at + 4, FrameType.PACKET, true)
}

/** Numbers and names, one after the other; a name's units take two bytes each. */
type Word = number | { readonly unit: number }

const name = (text: string): Word[] => [text.length, ...text.split('').map((unit) => ({ unit: unit.charCodeAt(0) }))]

function frame(type: number, words: readonly Word[]): Uint8Array {
  const length = words.reduce<number>((sum, word) => sum + (typeof word === 'number' ? 4 : 2), FRAME_HEADER_SIZE)
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, length, true)
  view.setUint32(4, type, true)
  let at = FRAME_HEADER_SIZE
  for (const word of words) {
    if (typeof word === 'number') view.setUint32(at, word, true)
    else view.setUint16(at, word.unit, true)
    at += typeof word === 'number' ? 4 : 2
  }
  return bytes
}

/** Cuts bytes into frames, however they come. Holds at most one frame that is not complete yet. */
export class FrameReader {
  #rest: Uint8Array = new Uint8Array(0);

  /**
   * The frames that are complete with these bytes. A packet's bytes are a part of `bytes` where that is possible.
   *
   * @throws {FrameError}
   */
  *read(bytes: Uint8Array): Generator<Frame> {
    const all = this.#rest.length === 0 ? bytes : concatenate([this.#rest, bytes])
    const view = new DataView(all.buffer, all.byteOffset, all.length)
    let at = 0
    this.#rest = new Uint8Array(0)
    while (all.length - at >= FRAME_HEADER_SIZE) {
      const length = view.getUint32(at, true)
      if (length < FRAME_HEADER_SIZE || length > LARGEST_FRAME) throw new FrameError(`a frame of ${length} bytes`)
      if (all.length - at < length) break
      yield decode(view.getUint32(at + 4, true), all.subarray(at + FRAME_HEADER_SIZE, at + length))
      at += length
    }
    if (at < all.length) this.#rest = all.slice(at)
  }
}

function decode(type: number, body: Uint8Array): Frame {
  const words = new Words(body)
  switch (type) {
    case FrameType.HELLO: {
      if (words.number() !== MAGIC) throw new FrameError('the peer is not a network')
      const version = words.number()
      if (version !== VERSION) throw new FrameError(`version ${version} of the protocol`)
      return { type: 'hello', window: words.number() }
    }
    case FrameType.GUEST: {
      const cid = words.number()
      const origin = words.name()
      const groups = Array.from({ length: words.count() }, () => words.name())
      return { type: 'guest', guest: { cid, origin, groups } }
    }
    case FrameType.GONE:
      return { type: 'gone', cid: words.number() }
    case FrameType.PACKET:
      if (body.length < PACKET_HEADER_SIZE) throw new FrameError('a packet without a header')
      return { type: 'packet', bytes: body }
    case FrameType.TAKEN: {
      const bytes = words.number()
      const taken: Taken[] = []
      while (words.left > 0) taken.push({ sender: words.number(), receiver: words.number(), cost: words.number() })
      return { type: 'taken', bytes, taken }
    }
    default:
      throw new FrameError(`a frame of type ${type}`)
  }
}

/** Reads what a frame holds. */
class Words {
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  get left(): number {
    return this.#view.byteLength - this.#at
  }

  number(): number {
    this.#need(4)
    this.#at += 4
    return this.#view.getUint32(this.#at - 4, true)
  }

  /** A number of things that follow, of at least two bytes each. */
  count(): number {
    const count = this.number()
    this.#need(2 * count)
    return count
  }

  name(): string {
    const units = Array.from({ length: this.count() }, () => {
      this.#at += 2
      return this.#view.getUint16(this.#at - 2, true)
    })
    return units.map((unit) => String.fromCharCode(unit)).join('')
  }

  #need(bytes: number): void {
    if (this.left < bytes) throw new FrameError('a frame that ends early')
  }
}
