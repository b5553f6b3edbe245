import type { Connection } from '../src/machine/connection.js'
import { Op } from '../src/machine/packet.js'
import type { FakeVm } from './fake-vm.js'
import { type Kernel, LinuxEnd, type LinuxEndOptions } from './linux-end.js'

/** VIRTIO_VSOCK_MAX_PKT_BUF_SIZE: a reader tells of its credit when less than that is free. */
const TELL_BELOW = 64 * 1024

/** The guest's end of a stream. */
export class LinuxSocket extends LinuxEnd {
  /** Bytes that its program has read. */
  read = 0
  readonly #kernel: Kernel
  /** Another limit than the protocol's, in bytes under way. */
  readonly #limit: number

  constructor(vm: FakeVm, connection: Connection, options: LinuxEndOptions & { kernel?: Kernel; limit?: number }) {
    super(vm, connection, options, options.kernel === '6.12.100')
    this.#kernel = options.kernel ?? '6.1'
    this.#limit = options.limit ?? Number.POSITIVE_INFINITY
  }

  /** setsockopt(SO_VM_SOCKETS_BUFFER_SIZE). */
  resize(bufferBytes: number): void {
    this.bufferBytes = bufferBytes
    this.say(Op.CREDIT_UPDATE)
  }

  /** Sends up to `count` bytes, as far as there is credit; true if that was anything. */
  write(count: number): boolean {
    const length = this.sendable(count, Math.min(this.peerAllocation, this.bufferBytes, this.#limit))
    if (length <= 0) return false
    this.sendData(new Uint8Array(length))
    return true
  }

  /** Its program reads up to `count` bytes; true if there were any. */
  consume(count: number): boolean {
    let taken = 0
    while (taken < count && this.queue.length > 0) {
      const first = this.queue[0]!
      const length = Math.min(count - taken, first.payload.length)
      taken += length
      first.payload = first.payload.subarray(length)
      if (first.payload.length === 0) this.queue.shift()
    }
    this.read += taken
    this.taken(taken)
    const free = this.bufferBytes - this.untold
    const empty = this.queue.length === 0 && this.#kernel !== '6.1'
    if (this.untold > 0 && (free < TELL_BELOW || empty)) this.say(Op.CREDIT_UPDATE)
    return taken > 0
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
