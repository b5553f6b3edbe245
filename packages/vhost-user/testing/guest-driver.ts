import {
  decodePacketHeader,
  emptyHeader,
  encodePacketHeader,
  PACKET_HEADER_SIZE,
  type PacketHeader,
} from '../src/machine/packet.js'
import { type DriverRing, type FakeGuest, GUEST_BASE, type GuestPacket } from './fake-guest.js'

const RX_AT = 0x2_0000
const RX_SLOT = 4224
const RX_SLOTS = 64
const TX_HEADERS_AT = 0x7_0000
const TX_HEADER = 64
const TX_HEADERS = 128
const TX_PAGES_AT = 0x8_0000
const PAGE = 4096
const TX_PAGES = 128

/**
 * A guest's virtio-vsock driver over the memory of a `FakeGuest`. Unlike the guest's own `send`, it puts packets of up to 64 KiB into
 * chains of pages, and it never uses a buffer again before the device has given it back.
 */
export class GuestDriver {
  /** Payload bytes that each receive buffer has room for: at most 4096. */
  room: number
  /** The driver gives the device no more receive buffers. */
  deaf = false
  readonly #guest: FakeGuest
  /** Told of every kick that the device has asked for. */
  readonly #kick: (ring: 'rx' | 'tx') => void
  readonly #rxSlots = Array.from({ length: RX_SLOTS }, (_, i) => RX_AT + i * RX_SLOT)
  readonly #rxUsed = new Map<number, number>()
  readonly #headers = Array.from({ length: TX_HEADERS }, (_, i) => TX_HEADERS_AT + i * TX_HEADER)
  readonly #pages = Array.from({ length: TX_PAGES }, (_, i) => TX_PAGES_AT + i * PAGE)
  readonly #txUsed = new Map<number, { header: number; pages: number[] }>()

  constructor(guest: FakeGuest, kick: (ring: 'rx' | 'tx') => void, { room = 1024 }: { room?: number } = {}) {
    this.#guest = guest
    this.#kick = kick
    this.room = room
  }

  /** Puts a packet into the transmit ring. False if there is no room for it now. */
  send(header: Readonly<PacketHeader>, payload: Uint8Array): boolean {
    this.#reap()
    const { tx, memoryBytes } = this.#guest
    const count = Math.ceil(payload.length / PAGE)
    const at = this.#headers.at(-1)
    if (at === undefined || tx.freeDescriptors < 1 + count || this.#pages.length < count) return false
    this.#headers.pop()
    const pages = this.#pages.splice(this.#pages.length - count, count)
    encodePacketHeader(header, new DataView(memoryBytes.buffer, memoryBytes.byteOffset + at))
    const buffers = [{ address: GUEST_BASE + at, length: PACKET_HEADER_SIZE, writable: false }]
    for (const [i, page] of pages.entries()) {
      const piece = payload.subarray(i * PAGE, (i + 1) * PAGE)
      memoryBytes.set(piece, page)
      buffers.push({ address: GUEST_BASE + page, length: piece.length, writable: false })
    }
    this.#kicking('tx', tx, () => this.#txUsed.set(tx.add(buffers), { header: at, pages }))
    return true
  }

  /** Packets in the transmit ring that the device has not given back. */
  get unsent(): number {
    this.#reap()
    return this.#txUsed.size
  }

  /** The packets that the device has delivered since the last call, at most `limit`. */
  receive(): GuestPacket[] {
    const { rx, memoryBytes } = this.#guest
    return rx.takeUsed().map(({ head, written }) => {
      const at = this.#rxUsed.get(head)
      if (at === undefined) throw new Error(`the device gives back chain ${head}, which it does not have`)
      this.#rxUsed.delete(head)
      this.#rxSlots.push(at)
      const header = emptyHeader()
      decodePacketHeader(new DataView(memoryBytes.buffer, memoryBytes.byteOffset + at), header)
      const payload = memoryBytes.slice(at + PACKET_HEADER_SIZE, at + written)
      if (payload.length !== header.length) throw new Error(`a packet of ${header.length} bytes has ${payload.length}`)
      return { header, payload }
    })
  }

  /** Gives the device receive buffers, as many as there are. */
  supply(most = RX_SLOTS): void {
    const { rx } = this.#guest
    if (this.deaf) return
    for (let i = 0; i < most && rx.freeDescriptors >= 1; i++) {
      const at = this.#rxSlots.pop()
      if (at === undefined) return
      const buffer = { address: GUEST_BASE + at, length: PACKET_HEADER_SIZE + this.room, writable: true }
      this.#kicking('rx', rx, () => this.#rxUsed.set(rx.add([buffer]), at))
    }
  }

  #reap(): void {
    for (const { head } of this.#guest.tx.takeUsed()) {
      const used = this.#txUsed.get(head)
      if (used === undefined) throw new Error(`the device gives back chain ${head}, which it does not have`)
      this.#txUsed.delete(head)
      this.#headers.push(used.header)
      this.#pages.push(...used.pages)
    }
  }

  /** vring_need_event: kicks if the device has asked for a kick at the entry that `add` makes. */
  #kicking(which: 'rx' | 'tx', ring: DriverRing, add: () => void): void {
    const before = ring.next
    add()
    if (((ring.next - ring.availEvent - 1) & 0xffff) < ((ring.next - before) & 0xffff)) this.#kick(which)
  }
}
