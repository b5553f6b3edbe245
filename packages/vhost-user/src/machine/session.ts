import { transition } from '@upcall/foundation/machine'
import { EVENT_RING, RING_COUNT, RX_RING, TX_RING } from './device.js'
import { type DeviceError, hex, protocolError } from './errors.js'
import { DEVICE_FEATURES, F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, P_REPLY_ACK, PROTOCOL_FEATURES } from './features.js'
import type { GuestMemory, MemoryRegion } from './memory.js'
import { decodeFrontEndMessage, encodeReply } from './message.js'
import { type FrontEndMessage, type MessageHeader, Request } from './message-format.js'
import { baseOf, INITIAL_RING, type RingContext, type RingEvent, type RingState, ringTable } from './ring-state.js'
import type { RingLayout, SplitRing } from './vring.js'

/** A file descriptor, as an object that only the platform can open. */
export type Descriptor = object

/** What the session needs done to the outside world. Every call is synchronous. Descriptors handed over belong to the callee. */
export interface Platform {
  /** Maps each region from its descriptor; throws if one cannot be mapped, leaving nothing mapped. */
  mapMemory(regions: readonly MemoryRegion[], descriptors: readonly Descriptor[]): GuestMemory
  /** After this no view into `memory` reaches guest memory any more. */
  unmapMemory(memory: GuestMemory): void
  /** Watches a ring's kick descriptor instead of the one before; undefined: none. */
  setKick(ring: number, descriptor: Descriptor | undefined): void
  setCall(ring: number, descriptor: Descriptor | undefined): void
  setError(ring: number, descriptor: Descriptor | undefined): void
  /** Interrupts the guest for a ring, if there is a descriptor for that. */
  notify(ring: number): void
  closeDescriptor(descriptor: Descriptor): void
}

/** What came of a message. */
export interface SessionResult {
  readonly reply?: Uint8Array
  /** The ring is not usable as the guest set it up. The session itself goes on. */
  readonly fault?: DeviceError
  /** A new driver begins at a ring: whatever the old one had open is gone. */
  readonly reset?: boolean
}

/** One ring: its state, what the front end has said of it, and whether it may be worked on. */
interface Ring {
  readonly number: number
  state: RingState
  layout: RingLayout
  enabled: boolean
}

/**
 * The back end's half of a vhost-user conversation: what the front end said, turned into rings. Its messages are trusted as far as
 * their sender is (the VMM, which could read this process's shared memory in any case). What the guest could have put into them is not trusted.
 *
 * A ring runs from SET_VRING_KICK to GET_VRING_BASE and is worked on while it is also enabled (ring-state.ts). GET_VRING_BASE comes both
 * when the VM is paused and when the guest is reset. Only the SET_VRING_BASE that follows tells: it names the place where the ring
 * stopped, or another.
 */
export class BackendSession {
  readonly #platform: Platform
  readonly #config: Uint8Array
  readonly #rings: readonly Ring[]
  #features = 0n
  #protocolFeatures = 0n
  #memory: GuestMemory | undefined

  /** @param config the device's configuration space (8 bytes for vsock: the guest's CID). */
  constructor(platform: Platform, config: Uint8Array) {
    this.#platform = platform
    this.#config = config
    this.#rings = Array.from({ length: RING_COUNT }, (_, number) => ({
      number,
      state: INITIAL_RING,
      layout: { size: 0, desc: 0, avail: 0, used: 0 },
      enabled: false,
    }))
  }

  /** The rings that may be worked on now. */
  get rx(): SplitRing | undefined {
    return this.#live(RX_RING)
  }
  get tx(): SplitRing | undefined {
    return this.#live(TX_RING)
  }

  /** Both data rings may be worked on. */
  get running(): boolean {
    return this.rx !== undefined && this.tx !== undefined
  }

  get features(): bigint {
    return this.#features
  }

  /**
   * Takes one message with the descriptors that came along; those that it does not need are closed. Throws `PROTOCOL` when the front end
   * is at fault, which ends the conversation.
   */
  receive(header: MessageHeader, payload: Uint8Array, descriptors: Descriptor[]): SessionResult {
    try {
      const message = decodeFrontEndMessage(header, payload)
      const answer = this.#handle(message, descriptors)
      const acknowledge = header.needReply && (this.#protocolFeatures & P_REPLY_ACK) !== 0n
      if (answer.reply === undefined && acknowledge) {
        return { ...answer, reply: encodeReply({ request: header.request, u64: 0n }) }
      }
      return answer
    } finally {
      for (const descriptor of descriptors) this.#platform.closeDescriptor(descriptor)
    }
  }

  /** Stops working on the rings until the driver starts again, or `restart`. */
  halt(): void {
    for (const ring of this.#rings) this.#step(ring, { type: 'halt' })
  }

  /** Works again on the rings that were halted. */
  restart(): DeviceError | undefined {
    return this.#stepAll('halted', { type: 'restart' })
  }

  /** The conversation is over: gives back everything that was taken. */
  close(): void {
    for (const ring of this.#rings) {
      ring.state = INITIAL_RING
      this.#platform.setKick(ring.number, undefined)
      this.#platform.setCall(ring.number, undefined)
      this.#platform.setError(ring.number, undefined)
    }
    if (this.#memory !== undefined) this.#platform.unmapMemory(this.#memory)
    this.#memory = undefined
  }

  #live(number: number): SplitRing | undefined {
    const { state, enabled } = this.#rings[number]!
    if (state.kind !== 'running') return undefined
    return enabled || (this.#features & F_PROTOCOL_FEATURES) === 0n ? state.ring : undefined
  }

  #handle(message: FrontEndMessage, descriptors: Descriptor[]): SessionResult {
    switch (message.request) {
      case 'GET_FEATURES':
        return reply({ request: Request.GET_FEATURES, u64: DEVICE_FEATURES })
      case 'GET_PROTOCOL_FEATURES':
        return reply({ request: Request.GET_PROTOCOL_FEATURES, u64: PROTOCOL_FEATURES })
      case 'SET_FEATURES':
        this.#features = offered('SET_FEATURES', message.features, DEVICE_FEATURES)
        return {}
      case 'SET_PROTOCOL_FEATURES':
        this.#protocolFeatures = offered('SET_PROTOCOL_FEATURES', message.features, PROTOCOL_FEATURES)
        return {}
      case 'SET_OWNER':
      case 'RESET_OWNER': // Obsolete, and defined as: ignore it.
        return {}
      case 'GET_CONFIG':
        return reply({
          request: Request.GET_CONFIG,
          offset: message.offset,
          flags: message.flags,
          bytes: this.#readConfig(message),
        })
      case 'SET_CONFIG':
        throw protocolError('SET_CONFIG', 'the configuration of a vsock device is read-only')
      case 'SET_MEM_TABLE':
        return this.#setMemory(message.regions, descriptors)
      default:
        return this.#handleRing(message, this.#ring(message), descriptors)
    }
  }

  #handleRing(message: RingMessage, ring: Ring, descriptors: Descriptor[]): SessionResult {
    switch (message.request) {
      case 'SET_VRING_NUM':
        ring.layout = { ...ring.layout, size: message.value }
        return {}
      case 'SET_VRING_ADDR': {
        const { desc, avail, used } = message
        ring.layout = { ...ring.layout, desc, avail, used }
        return ring.state.kind === 'running' ? this.#step(ring, { type: 'place' }) : {}
      }
      case 'SET_VRING_BASE':
        return this.#step(ring, { type: 'base', base: message.value })
      case 'GET_VRING_BASE':
        this.#step(ring, { type: 'stop' })
        this.#platform.setKick(ring.number, undefined)
        this.#platform.setCall(ring.number, undefined)
        return reply({ request: Request.GET_VRING_BASE, ring: ring.number, value: baseOf(ring.state) })
      case 'SET_VRING_KICK':
        if (!message.descriptor) throw protocolError('SET_VRING_KICK', 'there is no descriptor, and polling is not offered')
        this.#platform.setKick(ring.number, one(message.request, descriptors))
        return this.#step(ring, { type: 'start' })
      case 'SET_VRING_CALL':
        this.#platform.setCall(ring.number, message.descriptor ? one(message.request, descriptors) : undefined)
        // A running ring may have had no call descriptor, or another: an interrupt that was due meanwhile would never come again.
        if (ring.state.kind === 'running') this.#platform.notify(ring.number)
        return {}
      case 'SET_VRING_ERR':
        this.#platform.setError(ring.number, message.descriptor ? one(message.request, descriptors) : undefined)
        return {}
      case 'SET_VRING_ENABLE':
        ring.enabled = message.value !== 0
        return {}
    }
  }

  /** A new table replaces the old one under running rings: new views first, then the old ones go. */
  #setMemory(regions: MemoryRegion[], descriptors: Descriptor[]): SessionResult {
    if (descriptors.length !== regions.length)
      throw protocolError('SET_MEM_TABLE', `there are ${regions.length} regions and ${descriptors.length} descriptors`)
    const memory = this.#platform.mapMemory(regions, descriptors.splice(0))
    const old = this.#memory
    this.#memory = memory
    const fault = this.#stepAll('running', { type: 'place' })
    if (old !== undefined) this.#platform.unmapMemory(old)
    return fault === undefined ? {} : { fault }
  }

  /** One event for each ring in one state, up to the first fault. */
  #stepAll(kind: RingState['kind'], event: RingEvent): DeviceError | undefined {
    for (const ring of this.#rings.filter(({ state }) => state.kind === kind)) {
      const { fault } = this.#step(ring, event)
      if (fault !== undefined) return fault
    }
    return undefined
  }

  #step(ring: Ring, event: RingEvent): SessionResult {
    const context: RingContext = {
      now: 0,
      effects: [],
      memory: this.#memory,
      layout: ring.layout,
      features: {
        eventIdx: (this.#features & F_EVENT_IDX) !== 0n,
        indirect: (this.#features & F_INDIRECT_DESC) !== 0n,
      },
    }
    ring.state = transition(ringTable, context, ring.state, event)
    let result: SessionResult = {}
    for (const effect of context.effects) {
      switch (effect.type) {
        case 'interrupt':
          this.#platform.notify(ring.number)
          break
        case 'fault':
          // A ring that the guest placed badly stops them all.
          this.halt()
          result = { fault: effect.error }
          break
        case 'newDriver':
          result = this.#newDriver()
          break
        case 'ambiguous':
          if ([RX_RING, TX_RING].every((number) => this.#rings[number]!.state.driver.ambiguous)) result = this.#newDriver()
      }
    }
    return result
  }

  /** One new driver is one reset, however many rings it begins. */
  #newDriver(): SessionResult {
    for (const ring of this.#rings) this.#step(ring, { type: 'forget' })
    return { reset: true }
  }

  #ring(message: RingMessage): Ring {
    const ring = this.#rings[message.ring]
    if (ring === undefined)
      throw protocolError(message.request, `there is no ring ${message.ring}, and the last one is ${EVENT_RING}`)
    return ring
  }

  #readConfig({ offset, bytes }: { offset: number; bytes: Uint8Array }): Uint8Array {
    if (offset + bytes.length > this.#config.length) {
      const what = `it reads ${bytes.length} bytes at ${hex(offset)}, and the configuration space has ${this.#config.length}`
      throw protocolError('GET_CONFIG', what)
    }
    return this.#config.slice(offset, offset + bytes.length)
  }
}

type RingMessage = Extract<FrontEndMessage, { ring: number }>

const reply = (value: Parameters<typeof encodeReply>[0]): SessionResult => ({ reply: encodeReply(value) })

function offered(request: string, features: bigint, offer: bigint): bigint {
  if ((features & ~offer) !== 0n) throw protocolError(request, `${hex(features)} goes beyond the offer ${hex(offer)}`)
  return features
}

/** Takes the one descriptor out of the list, so that it is not closed with the rest. */
function one(request: string, descriptors: Descriptor[]): Descriptor {
  if (descriptors.length !== 1) throw protocolError(request, `there are ${descriptors.length} descriptors, not 1`)
  return descriptors.pop()!
}
