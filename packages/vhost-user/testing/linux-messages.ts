import { concatenate } from '@upcall/foundation/bytes'
import type { Connection } from '../src/machine/connection.js'
import { Op, SEQ_EOM, SEQ_EOR } from '../src/machine/packet.js'
import type { FakeVm } from './fake-vm.js'
import { type Kernel, LinuxEnd, type LinuxEndOptions } from './linux-end.js'

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
export class LinuxMessages extends LinuxEnd {
  /** Messages that its program has read. */
  readonly read: TestMessage[] = []
  #outgoing: TestMessage[] = []
  #offset = 0

  constructor(vm: FakeVm, connection: Connection, options: LinuxEndOptions & { kernel: Kernel }) {
    // Packets with EOM are never joined, not even by kernels that join others.
    super(vm, connection, options, options.kernel !== '6.1')
  }

  /** The longest message that its `send` takes; longer ones fail with EMSGSIZE. */
  get maxMessageBytes(): number {
    return Math.min(this.peerAllocation, this.bufferBytes)
  }

  send(message: TestMessage): void {
    if (message.data.length > this.maxMessageBytes) throw new Error('EMSGSIZE')
    this.#outgoing.push(message)
  }

  /** Takes what the device has delivered, and sends a packet if there is credit; true if anything moved. */
  step(): boolean {
    const received = this.receive()
    return this.#transmit() || received
  }

  /** Its program reads one message, if there is a complete one. Linux tells of the credit after each. */
  recv(): boolean {
    const last = this.queue.findIndex(({ flags }) => (flags & SEQ_EOM) !== 0)
    if (last < 0) return false
    const pieces = this.queue.splice(0, last + 1)
    const data = concatenate(pieces.map(({ payload }) => payload))
    this.read.push({ data, eor: (pieces.at(-1)!.flags & SEQ_EOR) !== 0 })
    this.taken(data.length)
    this.say(Op.CREDIT_UPDATE)
    return true
  }

  #transmit(): boolean {
    const message = this.#outgoing[0]
    if (message === undefined) return false
    const length = this.sendable(message.data.length - this.#offset, this.maxMessageBytes)
    if (length <= 0) return false
    const payload = message.data.subarray(this.#offset, this.#offset + length)
    this.#offset += length
    const ends = this.#offset === message.data.length
    this.sendData(payload, ends ? SEQ_EOM | (message.eor ? SEQ_EOR : 0) : 0)
    if (ends) {
      this.#outgoing.shift()
      this.#offset = 0
    }
    return true
  }
}
