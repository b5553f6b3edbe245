import type { Connection } from '../src/machine/connection.js'
import { Op, SEQ_EOM, SEQ_EOR } from '../src/machine/packet.js'
import { type FakeVm, reply } from './fake-vm.js'
import type { Kernel } from './linux-socket.js'

/** SKB_TRUESIZE(0) on x86-64. */
const PACKET_COST = 576
const LARGEST_PACKET = 4096

export interface TestMessage {
  readonly data: Uint8Array
  readonly eor: boolean
}

/** A message of which every byte depends on its number and its place, so that a mix-up shows. */
export const testMessage = (number: number, length: number, eor = false): TestMessage => ({
  data: Uint8Array.from({ length }, (_, i) => (number * 31 + i * 7) & 0xff),
  eor,
})

/** The guest's end of a SEQPACKET connection, as Linux has it (virtio_transport_seqpacket_do_enqueue, _do_dequeue). */
export class LinuxMessages {
  /** Messages that its program has read. */
  readonly read: TestMessage[] = []
  mostPackets = 0
  room = 1024
  readonly #vm: FakeVm
  readonly #connection: Connection
  readonly #kernel: Kernel
  readonly #bufferBytes: number
  #queue: { payload: Uint8Array; flags: number }[] = []
  #waiting = 0
  #forwarded = 0
  #sent = 0
  #peerAllocation: number
  #peerForwarded = 0
  #outgoing: TestMessage[] = []
  #offset = 0

  constructor(vm: FakeVm, connection: Connection, options: { kernel: Kernel; bufferBytes: number; peerAllocation: number }) {
    this.#vm = vm
    this.#connection = connection
    this.#kernel = options.kernel
    this.#bufferBytes = options.bufferBytes
    this.#peerAllocation = options.peerAllocation
  }

  /** The longest message that its `send` takes; longer ones fail with EMSGSIZE. */
  get maxMessageBytes(): number {
    return Math.min(this.#peerAllocation, this.#bufferBytes)
  }

  get outputPending(): boolean {
    return this.#outgoing.length > 0
  }

  send(message: TestMessage): void {
    if (message.data.length > this.maxMessageBytes) throw new Error('EMSGSIZE')
    this.#outgoing.push(message)
  }

  /** Takes what the device has delivered, and sends a packet if there is credit; true if anything moved. */
  step(): boolean {
    const packets = this.#vm.guest.received()
    for (const { header, payload } of packets) {
      this.#peerAllocation = header.bufferAllocation
      this.#peerForwarded = header.forwardCount
      if (header.op === Op.CREDIT_REQUEST) this.#say(Op.CREDIT_UPDATE)
      if (header.op === Op.RST) throw new Error('the device reset the connection')
      if (header.op === Op.RW) this.#take(payload, header.flags)
    }
    this.#vm.guest.supply(packets.length, this.room)
    return this.#transmit() || packets.length > 0
  }

  /** Its program reads one message, if there is a complete one. Linux tells of the credit after each. */
  recv(): boolean {
    const last = this.#queue.findIndex(({ flags }) => (flags & SEQ_EOM) !== 0)
    if (last < 0) return false
    const pieces = this.#queue.splice(0, last + 1)
    const data = new Uint8Array(pieces.reduce((sum, { payload }) => sum + payload.length, 0))
    let at = 0
    for (const { payload } of pieces) {
      data.set(payload, at)
      at += payload.length
    }
    this.read.push({ data, eor: (pieces.at(-1)!.flags & SEQ_EOR) !== 0 })
    this.#waiting -= data.length
    this.#forwarded = (this.#forwarded + data.length) >>> 0
    this.#say(Op.CREDIT_UPDATE)
    return true
  }

  #take(payload: Uint8Array, flags: number): void {
    this.#queue.push({ payload, flags })
    this.#waiting += payload.length
    this.mostPackets = Math.max(this.mostPackets, this.#queue.length)
    if (this.#waiting > this.#bufferBytes) throw new Error(`more bytes than the buffer holds: ${this.#waiting}`)
    // Packets with EOM are never joined, not even by kernels that join others.
    if (this.#kernel !== '6.1' && this.#queue.length * PACKET_COST > this.#bufferBytes)
      throw new Error(`more packets than the buffer holds: ${this.#queue.length}`)
  }

  #transmit(): boolean {
    const message = this.#outgoing[0]
    if (message === undefined) return false
    const credit = this.maxMessageBytes - ((this.#sent - this.#peerForwarded) >>> 0)
    const length = Math.min(credit, LARGEST_PACKET, message.data.length - this.#offset)
    if (length <= 0) return false
    const payload = message.data.subarray(this.#offset, this.#offset + length)
    this.#offset += length
    this.#sent = (this.#sent + length) >>> 0
    const ends = this.#offset === message.data.length
    this.#say(Op.RW, { flags: ends ? SEQ_EOM | (message.eor ? SEQ_EOR : 0) : 0 }, payload)
    if (ends) {
      this.#outgoing.shift()
      this.#offset = 0
    }
    return true
  }

  #say(op: number, fields = {}, payload?: Uint8Array): void {
    this.#vm.guest.tx.takeUsed()
    const credit = { bufferAllocation: this.#bufferBytes, forwardCount: this.#forwarded }
    reply(this.#vm, this.#connection, op, { ...credit, ...fields }, payload)
  }
}
