import type { Connection } from '../src/machine/connection.js'
import { Op } from '../src/machine/packet.js'
import { type FakeVm, reply } from './fake-vm.js'

/**
 * How kernels differ (net/vmw_vsock/virtio_transport_common.c). `6.1`: Debian's 6.1.192. `6.12.100`: counts packets against the buffer and
 * resets the connection when they outgrow it. `6.12.117`: joins them instead; it also tells of its credit when its queue is empty.
 */
export type Kernel = '6.1' | '6.12.100' | '6.12.117'

/** SKB_TRUESIZE(0) on x86-64. */
const PACKET_COST = 576
const LARGEST_PACKET = 4096

export interface LinuxEndOptions {
  readonly bufferBytes: number
  readonly peerAllocation: number
}

/** The guest's end of a connection: its queue and its credit, as Linux has them. What its program reads is a subclass's. */
export abstract class LinuxEnd {
  /** Bytes that its program has sent. */
  sent = 0
  /** The most packets that ever waited for its program. */
  mostPackets = 0
  /** Payload that each receive buffer has room for. */
  room = 1024
  protected queue: { payload: Uint8Array; flags: number }[] = []
  protected bufferBytes: number
  protected peerAllocation: number
  readonly #vm: FakeVm
  readonly #connection: Connection
  /** It counts packets against the buffer. */
  readonly #counts: boolean
  #peerForwarded = 0
  #waiting = 0
  #forwarded = 0
  #told = 0

  constructor(vm: FakeVm, connection: Connection, { bufferBytes, peerAllocation }: LinuxEndOptions, counts: boolean) {
    this.#vm = vm
    this.#connection = connection
    this.bufferBytes = bufferBytes
    this.peerAllocation = peerAllocation
    this.#counts = counts
  }

  /** Takes what the device has delivered; true if that was anything. */
  receive(): boolean {
    const packets = this.#vm.guest.received()
    for (const { header, payload } of packets) {
      this.peerAllocation = header.bufferAllocation
      this.#peerForwarded = header.forwardCount
      if (header.op === Op.CREDIT_REQUEST) this.say(Op.CREDIT_UPDATE)
      if (header.op === Op.RST) throw new Error('the device reset the connection')
      if (header.op === Op.RW) this.#enqueue(payload, header.flags)
    }
    this.#vm.guest.supply(packets.length, this.room)
    return packets.length > 0
  }

  #enqueue(payload: Uint8Array, flags: number): void {
    this.queue.push({ payload, flags })
    this.#waiting += payload.length
    this.mostPackets = Math.max(this.mostPackets, this.queue.length)
    if (this.#waiting > this.bufferBytes) throw new Error(`more bytes than the buffer holds: ${this.#waiting}`)
    if (this.#counts && this.queue.length * PACKET_COST > this.bufferBytes)
      throw new Error(`more packets than the buffer holds: ${this.queue.length}`)
  }

  /** How many of `count` bytes may go into the next packet; `window`: how many may be under way. */
  protected sendable(count: number, window: number): number {
    return Math.min(count, LARGEST_PACKET, window - ((this.sent - this.#peerForwarded) >>> 0))
  }

  protected sendData(payload: Uint8Array, flags = 0): void {
    this.sent += payload.length
    this.say(Op.RW, flags, payload)
  }

  /** Its program has read so many bytes. */
  protected taken(count: number): void {
    this.#waiting -= count
    this.#forwarded = (this.#forwarded + count) >>> 0
  }

  /** Bytes that its program has read and the device has not been told of. */
  protected get untold(): number {
    return (this.#forwarded - this.#told) >>> 0
  }

  protected say(op: number, flags = 0, payload?: Uint8Array): void {
    this.#told = this.#forwarded
    this.#vm.guest.tx.takeUsed()
    const credit = { bufferAllocation: this.bufferBytes, forwardCount: this.#forwarded }
    reply(this.#vm, this.#connection, op, { ...credit, flags }, payload)
  }
}
