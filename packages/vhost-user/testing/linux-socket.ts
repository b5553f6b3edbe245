import type { Connection } from '../src/machine/connection.js'
import { Op } from '../src/machine/packet.js'
import { type FakeVm, reply } from './fake-vm.js'

/**
 * How kernels differ (net/vmw_vsock/virtio_transport_common.c). `6.1`: Debian's 6.1.192. `6.12.100`: counts packets against the buffer and
 * resets the connection when they outgrow it. `6.12.117`: joins them instead; it also tells of its credit when its queue is empty.
 */
export type Kernel = '6.1' | '6.12.100' | '6.12.117'

/** VIRTIO_VSOCK_MAX_PKT_BUF_SIZE: a reader tells of its credit when less than that is free. */
const TELL_BELOW = 64 * 1024
/** SKB_TRUESIZE(0) on x86-64. */
const PACKET_COST = 576
const LARGEST_PACKET = 4096

/** The guest's end of a connection, with the credit of a Linux socket. */
export class LinuxSocket {
  /** Bytes that its program has sent and read. */
  sent = 0
  read = 0
  /** Packets that wait for its program, in bytes each; and the most that ever did. */
  readonly queue: number[] = []
  mostPackets = 0
  #waiting = 0
  #forwarded = 0
  #told = 0
  #peerAllocation: number
  #peerForwarded = 0
  readonly #vm: FakeVm
  readonly #connection: Connection
  readonly #kernel: Kernel
  #bufferBytes: number
  /** Another limit than the protocol's, in bytes under way. */
  readonly #limit: number

  constructor(
    vm: FakeVm,
    connection: Connection,
    options: { kernel?: Kernel; bufferBytes: number; peerAllocation: number; limit?: number },
  ) {
    this.#vm = vm
    this.#connection = connection
    this.#kernel = options.kernel ?? '6.1'
    this.#bufferBytes = options.bufferBytes
    this.#peerAllocation = options.peerAllocation
    this.#limit = options.limit ?? Number.POSITIVE_INFINITY
  }

  /** setsockopt(SO_VM_SOCKETS_BUFFER_SIZE). */
  resize(bufferBytes: number): void {
    this.#bufferBytes = bufferBytes
    this.#say(Op.CREDIT_UPDATE)
  }

  /** Takes what the device has delivered; true if that was anything. */
  receive(): boolean {
    const packets = this.#vm.guest.received()
    for (const { header, payload } of packets) {
      this.#peerAllocation = header.bufferAllocation
      this.#peerForwarded = header.forwardCount
      if (header.op === Op.CREDIT_REQUEST) this.#say(Op.CREDIT_UPDATE)
      if (header.op === Op.RST) throw new Error('the device reset the connection')
      if (header.op !== Op.RW) continue
      this.#waiting += payload.length
      this.queue.push(payload.length)
      this.mostPackets = Math.max(this.mostPackets, this.queue.length)
      if (this.#waiting > this.#bufferBytes) throw new Error(`more bytes than the buffer holds: ${this.#waiting}`)
      if (this.#kernel === '6.12.100' && this.queue.length * PACKET_COST > this.#bufferBytes)
        throw new Error(`more packets than the buffer holds: ${this.queue.length}`)
    }
    this.#vm.guest.supply(packets.length, this.room)
    return packets.length > 0
  }

  room = 1024

  /** Sends up to `count` bytes, as far as there is credit; true if that was anything. */
  write(count: number): boolean {
    const window = Math.min(this.#peerAllocation, this.#bufferBytes, this.#limit)
    const free = window - ((this.sent - this.#peerForwarded) >>> 0)
    const length = Math.min(count, free, LARGEST_PACKET)
    if (length <= 0) return false
    this.sent += length
    this.#say(Op.RW, new Uint8Array(length))
    return true
  }

  /** Its program reads up to `count` bytes; true if there were any. */
  consume(count: number): boolean {
    let left = count
    const before = this.#waiting
    while (left > 0 && this.queue.length > 0) {
      const length = Math.min(left, this.queue[0]!)
      left -= length
      this.#waiting -= length
      this.queue[0]! -= length
      if (this.queue[0] === 0) this.queue.shift()
    }
    const taken = before - this.#waiting
    this.read += taken
    this.#forwarded = (this.#forwarded + taken) >>> 0
    const untold = (this.#forwarded - this.#told) >>> 0
    const free = this.#bufferBytes - untold
    const empty = this.queue.length === 0 && this.#kernel !== '6.1'
    if (untold > 0 && (free < TELL_BELOW || empty)) this.#say(Op.CREDIT_UPDATE)
    return taken > 0
  }

  #say(op: number, payload?: Uint8Array): void {
    this.#told = this.#forwarded
    this.#vm.guest.tx.takeUsed()
    reply(this.#vm, this.#connection, op, { bufferAllocation: this.#bufferBytes, forwardCount: this.#forwarded }, payload)
  }
}

/** Goes on until `step` says that it is done. Bounded; returns how often nothing moved before the time did. */
export function drive(vm: FakeVm, step: () => { moved: boolean; done: boolean }): number {
  let waits = 0
  for (let turn = 0; turn < 200_000; turn++) {
    vm.run()
    const { moved, done } = step()
    if (done) return waits
    if (moved) continue
    vm.run()
    if (vm.rx.snapshot().used !== vm.guest.rx.seen) continue
    const next = vm.device.wakeAt
    if (next === Number.POSITIVE_INFINITY) throw new Error(`stands still: ${JSON.stringify(vm.device.muxer.snapshot())}`)
    waits++
    vm.advance(Math.max(0, next - vm.now))
  }
  throw new Error('does not come to an end')
}
