import { unixAddress } from '../src/listener.js'
import { DEVICE_FEATURES, P_CONFIG, P_REPLY_ACK } from '../src/machine/features.js'
import { decodeMessageHeader, encodeFrontEndMessage, type FrontEndMessage, MESSAGE_HEADER_SIZE } from '../src/machine/message.js'
import type { Binding, Descriptor, Mapped } from '../src/native/binding.js'
import { FakeGuest, GUEST_BASE, MEMORY_SIZE, USER_BASE } from './fake-guest.js'

export interface Reply {
  request: number
  payload: Uint8Array
}

/**
 * A VMM without a VM: speaks vhost-user over a real socket, with real shared memory and real eventfds, for a `FakeGuest` whose
 * memory that is.
 */
export class FakeFrontEnd {
  readonly #binding: Binding
  readonly #socket: Descriptor
  readonly memory: Descriptor
  readonly #mapped: Mapped
  readonly guest: FakeGuest
  kicks: Descriptor[]
  calls: Descriptor[]
  readonly errors: Descriptor[]
  #received = Buffer.alloc(0)

  constructor(binding: Binding, path: string) {
    this.#binding = binding
    this.#socket = binding.connect(unixAddress(binding, path))
    this.memory = binding.memfd(MEMORY_SIZE)
    this.#mapped = binding.map(this.memory, 0, MEMORY_SIZE, MEMORY_SIZE, MEMORY_SIZE)
    this.guest = new FakeGuest({ memory: new Uint8Array(this.#mapped.windows[0]!) })
    this.kicks = [binding.eventfd(), binding.eventfd()]
    this.calls = [binding.eventfd(), binding.eventfd()]
    this.errors = [binding.eventfd(), binding.eventfd()]
  }

  /** Sends without waiting for anything. */
  send(
    message: FrontEndMessage,
    { descriptors = [], needReply = false }: { descriptors?: Descriptor[]; needReply?: boolean } = {},
  ): void {
    this.sendBytes(encodeFrontEndMessage(message, { needReply }), descriptors)
  }

  sendBytes(bytes: Uint8Array, descriptors: Descriptor[] = []): void {
    this.#binding.send(this.#socket, bytes, descriptors)
  }

  /** Sends and waits for the answer. */
  async ask(message: FrontEndMessage, options: { descriptors?: Descriptor[]; needReply?: boolean } = {}): Promise<Reply> {
    this.send(message, options)
    const header = decodeMessageHeader(await this.#read(MESSAGE_HEADER_SIZE))
    return { request: header.request, payload: await this.#read(header.size) }
  }

  /** What QEMU says before the guest boots. */
  async negotiate(): Promise<void> {
    await this.ask({ request: 'GET_FEATURES' })
    await this.ask({ request: 'GET_PROTOCOL_FEATURES' })
    this.send({ request: 'SET_PROTOCOL_FEATURES', features: P_CONFIG | P_REPLY_ACK })
    this.send({ request: 'SET_OWNER' })
  }

  async setMemory({ needReply = true } = {}): Promise<void> {
    const regions = [{ guestAddress: GUEST_BASE, userAddress: USER_BASE, size: MEMORY_SIZE, fileOffset: 0 }]
    const options = { descriptors: [this.memory], needReply }
    if (needReply) await this.ask({ request: 'SET_MEM_TABLE', regions }, options)
    else this.send({ request: 'SET_MEM_TABLE', regions }, options)
  }

  startRing(ring: number, base = 0, { call = true } = {}): void {
    const { size, desc, avail, used } = (ring === 0 ? this.guest.rx : this.guest.tx).layout
    this.send({ request: 'SET_VRING_NUM', ring, value: size })
    this.send({ request: 'SET_VRING_BASE', ring, value: base })
    this.send({ request: 'SET_VRING_ADDR', ring, flags: 0, desc, used, avail, log: 0 })
    this.send({ request: 'SET_VRING_ERR', ring, descriptor: true }, { descriptors: [this.errors[ring]!] })
    this.send({ request: 'SET_VRING_KICK', ring, descriptor: true }, { descriptors: [this.kicks[ring]!] })
    if (call) this.send({ request: 'SET_VRING_CALL', ring, descriptor: true }, { descriptors: [this.calls[ring]!] })
  }

  /** From nothing to a running device, in QEMU's order: ENABLE comes last. */
  async start(bases: [number, number] = [0, 0]): Promise<void> {
    this.send({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
    await this.setMemory()
    for (const ring of [0, 1]) this.startRing(ring, bases[ring])
    for (const ring of [0, 1]) this.send({ request: 'SET_VRING_ENABLE', ring, value: 1 })
    await this.sync()
  }

  /** Stops both rings and tells where they stood. */
  async stop(): Promise<[number, number]> {
    const bases: number[] = []
    for (const ring of [0, 1]) {
      const { payload } = await this.ask({ request: 'GET_VRING_BASE', ring, value: 0 })
      bases.push(new DataView(payload.buffer, payload.byteOffset).getUint32(4, true))
    }
    return bases as [number, number]
  }

  /** Resolves when the back end has handled everything sent so far. */
  async sync(): Promise<void> {
    await this.ask({ request: 'GET_FEATURES' })
  }

  kick(ring: number): void {
    this.#binding.signal(this.kicks[ring]!)
  }

  /** Resolves at the next interrupt of that ring. Those from before, such as the one with which a ring begins, do not count. */
  interrupt(ring: number, descriptor = this.calls[ring]!): Promise<void> {
    this.#binding.drain(descriptor)
    return new Promise((resolve) =>
      this.#binding.watch(descriptor, this.#binding.READABLE, () => {
        this.#binding.drain(descriptor)
        this.#binding.unwatch(descriptor)
        resolve()
      }),
    )
  }

  /** Resolves when the back end hangs up. */
  async hungUp(): Promise<void> {
    for (;;) {
      try {
        await this.#read(1)
      } catch {
        return
      }
    }
  }

  close(): void {
    this.#binding.close(this.#socket)
    for (const descriptor of [this.memory, ...this.kicks, ...this.calls, ...this.errors]) this.#binding.close(descriptor)
    this.#binding.unmap(this.#mapped.mapping)
  }

  async #read(size: number): Promise<Uint8Array> {
    while (this.#received.length < size) {
      const got = this.#binding.receive(this.#socket, 4096)
      if (got === undefined) {
        await new Promise<void>((resolve) => this.#binding.watch(this.#socket, this.#binding.READABLE, () => resolve()))
        this.#binding.unwatch(this.#socket)
      } else if (got.bytes.length === 0) {
        throw new Error('the back end hung up')
      } else {
        this.#received = Buffer.concat([this.#received, got.bytes])
      }
    }
    const bytes = this.#received.subarray(0, size)
    this.#received = this.#received.subarray(size)
    return bytes
  }
}
