import { GuestMemory, type MemoryRegion } from '../src/machine/memory.js'
import {
  decodePacketHeader,
  emptyHeader,
  encodePacketHeader,
  HOST_CID,
  Op,
  PACKET_HEADER_SIZE,
  type PacketHeader,
} from '../src/machine/packet.js'
import { DESC_NEXT, DESC_WRITE, type RingFeatures, type RingLayout } from '../src/machine/vring.js'

export const GUEST_CID = 42
export const MEMORY_SIZE = 1 << 20
/** Guest-physical and front-end addresses differ, so that a mix-up shows. */
export const GUEST_BASE = 0x10_0000
export const USER_BASE = 0x7f00_0000_0000

export interface Descriptor {
  address: number
  length: number
  flags: number
  next: number
}

/** A driver's side of one split ring, over raw bytes that a test may also spoil by hand. */
export class DriverRing {
  readonly view: DataView
  readonly size: number
  readonly at: number
  #availIndex = 0
  #usedSeen = 0
  readonly #free: number[]
  readonly #chains = new Map<number, number[]>()

  /** Lays the ring out from `at` bytes into `memory` on: descriptors, available ring, used ring. */
  constructor(memory: Uint8Array, at: number, size: number) {
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.length)
    this.at = at
    this.size = size
    this.#free = Array.from({ length: size }, (_, i) => size - 1 - i)
  }

  get layout(): RingLayout {
    return { size: this.size, desc: USER_BASE + this.at, avail: USER_BASE + this.availAt, used: USER_BASE + this.usedAt }
  }
  get availAt(): number {
    return this.at + 16 * this.size
  }
  get usedAt(): number {
    return Math.ceil((this.availAt + 6 + 2 * this.size) / 4) * 4
  }
  get end(): number {
    return this.usedAt + 6 + 8 * this.size
  }
  get availIndex(): number {
    return this.view.getUint16(this.availAt + 2, true)
  }
  set availIndex(value: number) {
    this.view.setUint16(this.availAt + 2, value, true)
  }
  get usedIndex(): number {
    return this.view.getUint16(this.usedAt + 2, true)
  }
  /** With EVENT_IDX: the used index from which on the driver wants an interrupt. */
  set usedEvent(value: number) {
    this.view.setUint16(this.availAt + 4 + 2 * this.size, value, true)
  }
  get availEvent(): number {
    return this.view.getUint16(this.usedAt + 4 + 8 * this.size, true)
  }
  /** The available index after all that was offered, whether or not the device has been shown it. */
  get next(): number {
    return this.#availIndex
  }
  /** Begins at another index than 0, both sides having come so far. */
  startAt(index: number): void {
    this.#availIndex = this.#usedSeen = this.availIndex = index
    this.view.setUint16(this.usedAt + 2, index, true)
  }
  /** Up to where `takeUsed` has looked. */
  get seen(): number {
    return this.#usedSeen
  }
  get freeDescriptors(): number {
    return this.#free.length
  }

  setDescriptor(index: number, { address, length, flags, next }: Descriptor): void {
    const at = this.at + 16 * index
    this.view.setBigUint64(at, BigInt(address), true)
    this.view.setUint32(at + 8, length, true)
    this.view.setUint16(at + 12, flags, true)
    this.view.setUint16(at + 14, next, true)
  }

  /** Names `head` in the available ring without asking what it is. */
  offer(head: number): void {
    this.view.setUint16(this.availAt + 4 + 2 * (this.#availIndex % this.size), head, true)
    this.#availIndex = (this.#availIndex + 1) & 0xffff
    this.availIndex = this.#availIndex
  }

  /** An honest chain of the given buffers. */
  add(buffers: readonly { address: number; length: number; writable: boolean }[]): number {
    const taken = buffers.map(() => this.#free.pop()!)
    for (const [i, { address, length, writable }] of buffers.entries()) {
      const last = i === buffers.length - 1
      const flags = (writable ? DESC_WRITE : 0) | (last ? 0 : DESC_NEXT)
      this.setDescriptor(taken[i]!, { address, length, flags, next: last ? 0 : taken[i + 1]! })
    }
    const head = taken[0]!
    this.#chains.set(head, taken)
    this.offer(head)
    return head
  }

  /** What the device has given back since the last call. */
  takeUsed(): { head: number; written: number }[] {
    const used: { head: number; written: number }[] = []
    for (; this.#usedSeen !== this.usedIndex; this.#usedSeen = (this.#usedSeen + 1) & 0xffff) {
      const at = this.usedAt + 4 + 8 * (this.#usedSeen % this.size)
      const head = this.view.getUint32(at, true)
      used.push({ head, written: this.view.getUint32(at + 4, true) })
      this.#free.push(...(this.#chains.get(head) ?? []))
      this.#chains.delete(head)
    }
    return used
  }
}

export interface GuestPacket {
  header: PacketHeader
  payload: Uint8Array
}

/** A guest without QEMU: a piece of memory with two rings in it, and a driver that sends and receives packets. */
export class FakeGuest {
  readonly cid: number
  readonly memoryBytes: Uint8Array
  readonly memory: GuestMemory
  readonly rx: DriverRing
  readonly tx: DriverRing
  readonly features: RingFeatures = { eventIdx: true, indirect: true }
  readonly #buffers: number
  readonly #slots = new Map<number, number>()
  #slot = 0
  /** Each ring's buffers are used in turn for themselves: many packets one way must not overwrite what waits on the other. */
  #txSlot = 0

  /** @param memory where the guest lives: `MEMORY_SIZE` bytes, aligned to 16. */
  constructor({
    size = 128,
    memory = new Uint8Array(MEMORY_SIZE),
    cid = GUEST_CID,
  }: { size?: number; memory?: Uint8Array; cid?: number | undefined } = {}) {
    this.cid = cid
    this.memoryBytes = memory
    const region: MemoryRegion = { guestAddress: GUEST_BASE, userAddress: USER_BASE, size: MEMORY_SIZE, fileOffset: 0 }
    this.memory = new GuestMemory([{ ...region, windows: [this.memoryBytes] }])
    this.rx = new DriverRing(this.memoryBytes, 0x1000, size)
    this.tx = new DriverRing(this.memoryBytes, 0x9000, size)
    this.#buffers = 0x2_0000
  }

  /** Gives the device `count` receive buffers of a header and `room` bytes: up to 4096, of more than 1056 bytes at most 46 at a time. */
  supply(count: number, room = 1024): void {
    const large = room > 1056
    for (let i = 0; i < count && this.rx.freeDescriptors >= 2; i++) {
      const at = large ? 0xd_0000 + (this.#slot++ % 46) * 4200 : this.#buffers + (this.#slot++ % 256) * 1100
      const head = this.rx.add([
        { address: GUEST_BASE + at, length: PACKET_HEADER_SIZE, writable: true },
        { address: GUEST_BASE + at + PACKET_HEADER_SIZE, length: room, writable: true },
      ])
      this.#slots.set(head, at)
    }
  }

  /** Puts a packet into the transmit ring. */
  send(fields: Partial<PacketHeader>, payload: Uint8Array = new Uint8Array(0)): void {
    const at = 0x8_0000 + (this.#txSlot++ % 64) * 5000
    const header = {
      ...emptyHeader(),
      sourceCid: this.cid,
      destinationCid: HOST_CID,
      length: payload.length,
      bufferAllocation: 1 << 16,
      ...fields,
    }
    encodePacketHeader(header, new DataView(this.memoryBytes.buffer, this.memoryBytes.byteOffset + at))
    this.memoryBytes.set(payload, at + PACKET_HEADER_SIZE)
    const buffers = [{ address: GUEST_BASE + at, length: PACKET_HEADER_SIZE, writable: false }]
    if (payload.length > 0)
      buffers.push({ address: GUEST_BASE + at + PACKET_HEADER_SIZE, length: payload.length, writable: false })
    this.tx.add(buffers)
  }

  /** The packets that the device has delivered since the last call. */
  received(): GuestPacket[] {
    return this.rx.takeUsed().map(({ head, written }) => {
      const at = this.#slots.get(head)!
      const header = emptyHeader()
      decodePacketHeader(new DataView(this.memoryBytes.buffer, this.memoryBytes.byteOffset + at), header)
      return { header, payload: this.memoryBytes.slice(at + PACKET_HEADER_SIZE, at + written) }
    })
  }
}

const opNames = new Map<number, string>(Object.entries(Op).map(([name, value]) => [value, name]))

/** `RW`, `RST`, …: what a failed assertion should show. */
export const opName = (packet: GuestPacket): string => opNames.get(packet.header.op) ?? `op ${packet.header.op}`
