import type { Chain } from './chain.js'
import { type DeviceError, type DeviceErrorCode, guestError, hex } from './errors.js'
import type { MemoryPort } from './memory.js'

/** Descriptor flags (virtio 1.2, 2.7.5). */
export const DESC_NEXT = 1
export const DESC_WRITE = 2
export const DESC_INDIRECT = 4
/** Flags of the two rings: "do not interrupt me" in the available ring, "do not kick me" in the used ring. */
const NO_INTERRUPT = 1
const NO_NOTIFY = 1

/** QEMU's own bound on a chain; a ring with more entries allows as many. */
const MAX_CHAIN = 1024
export const MAX_RING_SIZE = 32768
const DESC_SIZE = 16

export interface RingLayout {
  /** Number of descriptors: a power of two up to 32768. */
  readonly size: number
  /** Front-end addresses of the three parts. */
  readonly desc: number
  readonly avail: number
  readonly used: number
}

export interface RingFeatures {
  readonly eventIdx: boolean
  readonly indirect: boolean
}

/** A guest that has not taken what was published. */
export interface Overdue {
  /** It has not been interrupted for it; otherwise it was, and is busy, paused, or did not get the interrupt. */
  readonly lost: boolean
  /** How many looks in a row have found the same: 1 and up. */
  readonly looks: number
}

export interface RingSnapshot {
  readonly size: number
  /** The guest's index of chains offered, and the device's of chains given back. */
  readonly avail: number
  readonly used: number
  /** With EVENT_IDX: where the guest wants an interrupt, and the device a kick. */
  readonly usedEvent: number
  readonly availEvent: number
  /** Up to where the device has taken what was offered. */
  readonly taken: number
  /** Chains given back since the last interrupt. */
  readonly uninterrupted: number
}

/**
 * The device's side of a split virtqueue (virtio 1.2, 2.7). Whatever lies in guest memory is read once into a local and checked
 * before use; a violation throws `DeviceError` and leaves the ring as it was.
 *
 * Guest and host are taken to be little-endian. VIRTIO_F_VERSION_1 demands it, and legacy x86-64 and arm64
 * guests do it; the layout is otherwise the same, because vhost-user hands over each part's address.
 */
export class SplitRing {
  readonly size: number
  /** A chain has been taken: the guest uses this ring. */
  active = false
  readonly #memory: MemoryPort
  readonly #features: RingFeatures
  /** Four words a descriptor: address low, address high, length, flags | next << 16. */
  readonly #desc: Uint32Array
  /** flags, idx, ring[size], used_event */
  readonly #avail: Uint16Array
  /** flags, idx, …, avail_event */
  readonly #used: Uint16Array
  /** The used ring's elements (id, length) begin at word 1. */
  readonly #usedElements: Uint32Array
  #lastAvail: number
  #usedIndex: number
  #published: number
  #announced: number
  /** Chains published since the last interrupt, as far as the ring can hold them: the guest cannot have missed more. */
  #uninterrupted = 0
  /** What `overdue` found, and how often in a row. */
  #lag = { published: -1, wish: -1, looks: 0 }

  /** @param base the available index to go on from (SET_VRING_BASE). */
  constructor(memory: MemoryPort, layout: RingLayout, features: RingFeatures, base: number) {
    const { size } = layout
    if (!(size > 0 && size <= MAX_RING_SIZE && (size & (size - 1)) === 0)) {
      throw guestError('RING_SIZE', `ring of ${size} descriptors`, `the size must be a power of two up to ${MAX_RING_SIZE}`)
    }
    this.size = size
    this.#memory = memory
    this.#features = features
    const desc = part(memory, 'descriptor table', layout.desc, size * DESC_SIZE, DESC_SIZE)
    const avail = part(memory, 'available ring', layout.avail, 6 + 2 * size, 2)
    const used = part(memory, 'used ring', layout.used, 6 + 8 * size, 4)
    this.#desc = new Uint32Array(desc.buffer, desc.byteOffset, size * 4)
    this.#avail = new Uint16Array(avail.buffer, avail.byteOffset, 3 + size)
    this.#used = new Uint16Array(used.buffer, used.byteOffset, 3 + 4 * size)
    this.#usedElements = new Uint32Array(used.buffer, used.byteOffset, 1 + 2 * size)
    this.#lastAvail = base & 0xffff
    this.#usedIndex = this.#published = this.#announced = Atomics.load(this.#used, 1)
  }

  /** The next available index: what GET_VRING_BASE answers. */
  get base(): number {
    return this.#lastAvail
  }

  /** Chains waiting. Throws if the guest claims more than the ring can hold. */
  get pending(): number {
    const pending = (Atomics.load(this.#avail, 1) - this.#lastAvail) & 0xffff
    if (pending > this.size) {
      throw guestError('AVAIL_INDEX', 'available ring', `its index is ${pending} ahead, and it has ${this.size} entries`)
    }
    return pending
  }

  /** Takes the next chain into `chain`; false when there is none. */
  pop(chain: Chain): boolean {
    if (this.pending === 0) return false
    const head = this.#avail[2 + (this.#lastAvail & (this.size - 1))]!
    if (head >= this.size) throw guestError('DESCRIPTOR_INDEX', 'available ring', `it names descriptor ${head} of ${this.size}`)
    chain.begin(head)
    this.#walk(head, chain)
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff
    this.active = true
    return true
  }

  /** The last `count` chains were not used after all: they come again. */
  unpop(count: number): void {
    this.#lastAvail = (this.#lastAvail - count) & 0xffff
  }

  /** Gives a chain back with the number of bytes written. The guest sees it after `publish`. */
  push(head: number, written: number): void {
    const at = 1 + 2 * (this.#usedIndex & (this.size - 1))
    this.#usedElements[at] = head
    this.#usedElements[at + 1] = written
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff
  }

  /** Shows the guest what was pushed since the last call. */
  publish(): void {
    // Atomics.store is sequentially consistent: a full barrier between this store and the load of the guest's wish in `interruptDue`,
    // without which both sides may miss each other and wait for ever.
    if (this.#published !== this.#usedIndex) Atomics.store(this.#used, 1, this.#usedIndex)
    this.#published = this.#usedIndex
  }

  /** Chains published since `interruptDue` was last asked. */
  get unannounced(): number {
    return (this.#published - this.#announced) & 0xffff
  }

  /**
   * Whether the guest wants to be interrupted for what was published since the last interrupt. May be asked late: a guest that has
   * looked meanwhile says no. To be asked again for every publication: a wish that came too late to be seen at the last publication is seen now.
   */
  interruptDue(): boolean {
    const fresh = (this.#published - this.#announced) & 0xffff
    if (fresh === 0) return false
    this.#announced = this.#published
    this.#uninterrupted = Math.min(this.#uninterrupted + fresh, this.size)
    const due = this.#features.eventIdx ? this.#publishedSince(this.#wish) <= this.#uninterrupted : !this.#masked
    if (due) this.#uninterrupted = 0
    return due
  }

  /**
   * Whether the guest has yet to take what was published, although it wants to hear of it, and whether or not it was interrupted. To be
   * asked when nothing was published for a while. The caller interrupts the guest.
   *
   * With EVENT_IDX, a guest that has caught up wishes for the next chain. Without, it does not say. So it is interrupted once more
   * if it was not interrupted for the last chains, as it may have asked for that too late.
   */
  overdue(): Overdue | undefined {
    const wish = this.#features.eventIdx ? this.#wish : this.#published
    const missed = this.#publishedSince(wish)
    const lost = this.#features.eventIdx ? missed <= this.#uninterrupted : this.#uninterrupted > 0 && !this.#masked
    // Linux wishes for index 0 while it wants no interrupt: that, too, is mostly more than the ring holds.
    if (this.#features.eventIdx ? missed > this.size : !lost) return undefined
    const { published, wish: lastWish, looks } = this.#lag
    const same = published === this.#published && lastWish === wish
    this.#lag = { published: this.#published, wish, looks: same ? looks + 1 : 1 }
    this.#uninterrupted = 0
    return { lost, looks: this.#lag.looks }
  }

  /** The index at which the guest wants to be interrupted (used_event). */
  get #wish(): number {
    return Atomics.load(this.#avail, 2 + this.size)
  }

  /** The guest wants no interrupts for now. */
  get #masked(): boolean {
    return (Atomics.load(this.#avail, 0) & NO_INTERRUPT) !== 0
  }

  /** How many chains were published from the chain on that the guest waits for. 65536 for a wish that lies ahead: no chain yet. */
  #publishedSince(wish: number): number {
    return ((this.#published - wish - 1) & 0xffff) + 1
  }

  /** How things stand with it, as plain data. Indexes are 16 bits wide and wrap. */
  snapshot(): RingSnapshot {
    return {
      size: this.size,
      avail: Atomics.load(this.#avail, 1),
      used: Atomics.load(this.#used, 1),
      usedEvent: this.#wish,
      availEvent: Atomics.load(this.#used, 2 + 4 * this.size),
      taken: this.#lastAvail,
      uninterrupted: this.#uninterrupted,
    }
  }

  /** Asks for a kick at the next chain. True if one came in meanwhile, for which there will be no kick. */
  enableKicks(): boolean {
    if (this.#features.eventIdx) Atomics.store(this.#used, 2 + 4 * this.size, this.#lastAvail)
    else Atomics.store(this.#used, 0, 0)
    return this.pending > 0
  }

  /** A hint: the guest need not kick while the ring is being worked on. */
  disableKicks(): void {
    if (!this.#features.eventIdx) this.#used[0] = NO_NOTIFY
  }

  #walk(head: number, chain: Chain): void {
    const limit = Math.max(MAX_CHAIN, this.size)
    let index = head
    for (let count = 1; ; count++) {
      if (count > this.size) throw loop(head)
      const at = index * 4
      const low = this.#desc[at]!
      const high = this.#desc[at + 1]!
      const length = this.#desc[at + 2]!
      const tail = this.#desc[at + 3]!
      const flags = tail & 0xffff
      if ((flags & DESC_INDIRECT) !== 0) {
        this.#walkIndirect(head, address(low, high), length, flags, limit - count, chain)
        return
      }
      this.#buffer(address(low, high), length, flags, chain)
      if ((flags & DESC_NEXT) === 0) return
      index = tail >>> 16
      if (index >= this.size) throw chainError('DESCRIPTOR_INDEX', head, `it goes on at descriptor ${index} of ${this.size}`)
    }
  }

  #walkIndirect(head: number, table: number, length: number, flags: number, limit: number, chain: Chain): void {
    if (!this.#features.indirect) throw chainError('INDIRECT', head, 'indirect descriptors were not negotiated')
    if ((flags & DESC_NEXT) !== 0) throw chainError('INDIRECT', head, 'an indirect descriptor cannot have a next one')
    const entries = length / DESC_SIZE
    if (entries < 1 || entries > MAX_RING_SIZE || !Number.isInteger(entries)) {
      throw chainError('INDIRECT', head, `an indirect table cannot have ${length} bytes`)
    }
    const { window, offset } = this.#memory.locate(table, length)
    const view = new DataView(window.buffer, window.byteOffset + offset, length)
    let index = 0
    for (let count = 1; ; count++) {
      if (count > limit || count > entries) throw loop(head)
      const at = index * DESC_SIZE
      const low = view.getUint32(at, true)
      const high = view.getUint32(at + 4, true)
      const size = view.getUint32(at + 8, true)
      const tail = view.getUint32(at + 12, true)
      const entryFlags = tail & 0xffff
      if ((entryFlags & DESC_INDIRECT) !== 0) throw chainError('INDIRECT', head, 'its indirect table is nested')
      this.#buffer(address(low, high), size, entryFlags, chain)
      if ((entryFlags & DESC_NEXT) === 0) return
      index = tail >>> 16
      if (index >= entries)
        throw chainError('DESCRIPTOR_INDEX', head, `it goes on at entry ${index} of an indirect table of ${entries}`)
    }
  }

  #buffer(address: number, length: number, flags: number, chain: Chain): void {
    const writable = (flags & DESC_WRITE) !== 0
    chain.descriptors++
    if (!writable && chain.writable > 0) {
      throw chainError('DESCRIPTOR_ORDER', chain.head, 'a readable descriptor follows a writable one')
    }
    this.#memory.append(address, length, writable, chain)
  }
}

const chainError = (code: DeviceErrorCode, head: number, what: string): DeviceError =>
  guestError(code, `descriptor chain ${head}`, what)
const loop = (head: number): DeviceError => chainError('DESCRIPTOR_LOOP', head, 'it does not end')

/** A 64-bit address as a number. Beyond 2^53 it is rounded, which is harmless: no region reaches that far. */
const address = (low: number, high: number): number => high * 0x1_0000_0000 + low

function part(memory: MemoryPort, name: string, at: number, length: number, alignment: number): Uint8Array {
  const subject = `${name} at ${hex(at)} of ${length} bytes`
  if (at % alignment !== 0) throw guestError('RING_ALIGNMENT', subject, `it is not aligned to ${alignment} bytes`)
  const located = memory.locateUser(at, length)
  if (located === undefined) throw guestError('RING_ADDRESS', subject, 'it does not lie inside guest memory')
  const bytes = located.window.subarray(located.offset, located.offset + length)
  // A region's file is mapped at a page boundary, but nothing says that the front end numbers its addresses the same way.
  if (bytes.byteOffset % Math.min(alignment, 4) !== 0) {
    throw guestError('RING_ALIGNMENT', subject, `it is not aligned to ${alignment} bytes where it is mapped`)
  }
  return bytes
}
