import { FrontEndChannel, type SendOptions } from '../src/front-end/channel.js'
import { EventDescriptor } from '../src/front-end/event.js'
import { decodeReply } from '../src/front-end/message.js'
import { SharedMemory } from '../src/front-end/shared-memory.js'
import { unixAddress } from '../src/listener.js'
import { DEVICE_FEATURES, PROTOCOL_FEATURES } from '../src/machine/features.js'
import type { MemoryRegion } from '../src/machine/memory.js'
import type { BackEndReply, FrontEndMessage } from '../src/machine/message-format.js'
import type { Descriptor, FrontEndBinding } from '../src/native/binding.js'
import { FakeGuest, GUEST_BASE, MEMORY_SIZE, USER_BASE } from './fake-guest.js'

const REGION: MemoryRegion = { guestAddress: GUEST_BASE, userAddress: USER_BASE, size: MEMORY_SIZE, fileOffset: 0 }

/**
 * A VMM without a VM: speaks vhost-user over a real socket, with real shared memory and real eventfds, for a `FakeGuest` whose
 * memory that is.
 */
export class FakeFrontEnd {
  readonly #channel: FrontEndChannel
  readonly memory: SharedMemory
  guest: FakeGuest
  readonly kicks: EventDescriptor[]
  readonly calls: EventDescriptor[]
  readonly errors: EventDescriptor[]

  constructor(binding: FrontEndBinding, path: string, cid?: number) {
    const pair = () => [new EventDescriptor(binding), new EventDescriptor(binding)]
    this.#channel = new FrontEndChannel(binding, unixAddress(binding, path))
    this.memory = new SharedMemory(binding, MEMORY_SIZE)
    this.guest = new FakeGuest({ memory: this.memory.bytes, cid })
    this.kicks = pair()
    this.calls = pair()
    this.errors = pair()
  }

  /** Sends without waiting for anything. */
  send(message: FrontEndMessage, options?: SendOptions): void {
    this.#channel.send(message, options)
  }

  sendBytes(bytes: Uint8Array, descriptors: Descriptor[] = []): void {
    this.#channel.sendBytes(bytes, descriptors)
  }

  /** Sends and waits for the answer. */
  async ask(message: FrontEndMessage, options?: SendOptions): Promise<BackEndReply> {
    const { header, payload } = await this.#channel.ask(message, options)
    return decodeReply(header, payload)
  }

  /** What the guest's driver takes of the device's offer. */
  features = DEVICE_FEATURES

  /** What QEMU says before the guest boots. */
  async negotiate(): Promise<void> {
    await this.ask({ request: 'GET_FEATURES' })
    await this.ask({ request: 'GET_PROTOCOL_FEATURES' })
    this.send({ request: 'SET_PROTOCOL_FEATURES', features: PROTOCOL_FEATURES })
    await this.ask({ request: 'GET_QUEUE_NUM' })
    await this.ask({ request: 'GET_MAX_MEM_SLOTS' })
    this.send({ request: 'SET_OWNER' })
  }

  async setMemory({ needReply = true } = {}): Promise<void> {
    const regions = [REGION]
    const options = { descriptors: [this.memory.descriptor], needReply }
    if (needReply) await this.ask({ request: 'SET_MEM_TABLE', regions }, options)
    else this.send({ request: 'SET_MEM_TABLE', regions }, options)
  }

  /** Another region than the guest's, of the same file; 0: it was taken. */
  async addRegion(region: Partial<MemoryRegion> = {}): Promise<bigint> {
    const descriptors = [this.memory.descriptor]
    return acknowledged(
      await this.ask({ request: 'ADD_MEM_REG', region: { ...REGION, ...region } }, { descriptors, needReply: true }),
    )
  }

  async removeRegion(region: Partial<MemoryRegion> = {}): Promise<bigint> {
    return acknowledged(await this.ask({ request: 'REM_MEM_REG', region: { ...REGION, ...region } }, { needReply: true }))
  }

  startRing(ring: number, base = 0, { call = true } = {}): void {
    const { size, desc, avail, used } = (ring === 0 ? this.guest.rx : this.guest.tx).layout
    this.send({ request: 'SET_VRING_NUM', ring, value: size })
    this.send({ request: 'SET_VRING_BASE', ring, value: base })
    this.send({ request: 'SET_VRING_ADDR', ring, flags: 0, desc, used, avail, log: 0 })
    this.setEvent('SET_VRING_ERR', ring, this.errors[ring]!)
    this.setEvent('SET_VRING_KICK', ring, this.kicks[ring]!)
    if (call) this.setEvent('SET_VRING_CALL', ring, this.calls[ring]!)
  }

  setEvent(request: 'SET_VRING_KICK' | 'SET_VRING_CALL' | 'SET_VRING_ERR', ring: number, { descriptor }: EventDescriptor): void {
    this.send({ request, ring, descriptor: true }, { descriptors: [descriptor] })
  }

  /** From nothing to a running device, in QEMU's order: ENABLE comes last. */
  async start(bases: [number, number] = [0, 0]): Promise<void> {
    this.send({ request: 'SET_FEATURES', features: this.features })
    await this.setMemory()
    for (const ring of [0, 1]) this.startRing(ring, bases[ring])
    for (const ring of [0, 1]) this.send({ request: 'SET_VRING_ENABLE', ring, value: 1 })
    await this.sync()
  }

  /** The guest begins again, with nothing in its memory. */
  reboot(): void {
    this.memory.bytes.fill(0)
    this.guest = new FakeGuest({ memory: this.memory.bytes })
  }

  /** Stops both rings and tells where they stood. */
  async stop(): Promise<[number, number]> {
    const bases: number[] = []
    for (const ring of [0, 1]) {
      const reply = await this.ask({ request: 'GET_VRING_BASE', ring, value: 0 })
      if ('ring' in reply) bases.push(reply.value)
    }
    return bases as [number, number]
  }

  /** Resolves when the back end has handled everything sent so far. */
  async sync(): Promise<void> {
    await this.ask({ request: 'GET_FEATURES' })
  }

  kick(ring: number): void {
    this.kicks[ring]!.signal()
  }

  /** Resolves at the next interrupt of that ring. Those from before, such as the one with which a ring begins, do not count. */
  interrupt(ring: number): Promise<void> {
    return this.calls[ring]!.next()
  }

  /** Resolves when the back end hangs up. */
  hungUp(): Promise<void> {
    return this.#channel.hungUp()
  }

  close(): void {
    this.#channel.close()
    this.memory.close()
    for (const event of [...this.kicks, ...this.calls, ...this.errors]) event.close()
  }
}

function acknowledged(reply: BackEndReply): bigint {
  if (!('u64' in reply)) throw new Error('the reply is not an acknowledgement')
  return reply.u64
}
