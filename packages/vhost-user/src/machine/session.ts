import { EVENT_RING, RING_COUNT, RX_RING, TX_RING } from './device.js'
import { DeviceError, hex, toDeviceError } from './errors.js'
import type { GuestMemory, MemoryRegion } from './memory.js'
import { decodeFrontEndMessage, encodeReply, type FrontEndMessage, type MessageHeader, Request } from './message.js'
import { SplitRing } from './vring.js'

/** Device features (virtio 1.2, 6) that are implemented here, and nothing else. */
export const F_INDIRECT_DESC = 1n << 28n
export const F_EVENT_IDX = 1n << 29n
export const F_VERSION_1 = 1n << 32n
/** VHOST_USER_F_PROTOCOL_FEATURES: not a feature of the device; QEMU exits without it. */
export const F_PROTOCOL_FEATURES = 1n << 30n
export const DEVICE_FEATURES = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1 | F_PROTOCOL_FEATURES

/** Protocol features: whatever is offered here will be used by QEMU, and must work. */
export const P_REPLY_ACK = 1n << 3n
export const P_CONFIG = 1n << 9n
export const PROTOCOL_FEATURES = P_REPLY_ACK | P_CONFIG

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

interface RingState {
  size: number
  base: number
  desc: number
  avail: number
  used: number
  kicked: boolean
  enabled: boolean
  /** Where GET_VRING_BASE found the ring; undefined before the first stop. */
  stoppedAt: number | undefined
  /** A chain has been taken since the driver began. */
  active: boolean
  /** It stopped and starts at 0, but was in use: an index that came round by chance, or a new driver. */
  ambiguous: boolean
  ring: SplitRing | undefined
}

/**
 * The back end's half of a vhost-user conversation: what the front end said, turned into rings. Its messages are trusted as far as
 * their sender is (the VMM, which could read this process's shared memory anyhow); what the guest could have put into them is not.
 *
 * A ring runs from SET_VRING_KICK to GET_VRING_BASE and is worked on while it is also enabled. GET_VRING_BASE comes both when the VM
 * is paused and when the guest is reset; only the SET_VRING_BASE that follows tells: where the ring stopped, or somewhere else.
 */
export class BackendSession {
  readonly #platform: Platform
  readonly #config: Uint8Array
  readonly #rings: RingState[]
  #features = 0n
  #protocolFeatures = 0n
  #memory: GuestMemory | undefined

  /** @param config the device's configuration space (8 bytes for vsock: the guest's CID). */
  constructor(platform: Platform, config: Uint8Array) {
    this.#platform = platform
    this.#config = config
    this.#rings = Array.from({ length: RING_COUNT }, () => ({
      size: 0,
      base: 0,
      desc: 0,
      avail: 0,
      used: 0,
      kicked: false,
      enabled: false,
      stoppedAt: undefined,
      active: false,
      ambiguous: false,
      ring: undefined,
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
    for (const state of this.#rings) {
      if (state.ring !== undefined) Object.assign(state, { base: state.ring.base, active: state.active || state.ring.active })
      state.ring = undefined
    }
  }

  /** Works again on the rings that were halted. */
  restart(): DeviceError | undefined {
    return this.#derive(this.#rings.filter((state) => state.kicked && state.ring === undefined))
  }

  /** The conversation is over: gives back everything that was taken. */
  close(): void {
    for (const [ring, state] of this.#rings.entries()) {
      state.ring = undefined
      state.kicked = false
      this.#platform.setKick(ring, undefined)
      this.#platform.setCall(ring, undefined)
      this.#platform.setError(ring, undefined)
    }
    if (this.#memory !== undefined) this.#platform.unmapMemory(this.#memory)
    this.#memory = undefined
  }

  #live(ring: number): SplitRing | undefined {
    const state = this.#rings[ring]!
    const enabled = state.enabled || (this.#features & F_PROTOCOL_FEATURES) === 0n
    return enabled ? state.ring : undefined
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
        throw new DeviceError('PROTOCOL', 'vhost-user: SET_CONFIG: the configuration of a vsock device is read-only')
      case 'SET_MEM_TABLE':
        return this.#setMemory(message.regions, descriptors)
      default:
        return this.#handleRing(message, this.#ringState(message), descriptors)
    }
  }

  #handleRing(message: RingMessage, state: RingState, descriptors: Descriptor[]): SessionResult {
    switch (message.request) {
      case 'SET_VRING_NUM':
        state.size = message.value
        return {}
      case 'SET_VRING_ADDR':
        state.desc = message.desc
        state.avail = message.avail
        state.used = message.used
        return state.ring === undefined ? {} : fault(this.#derive([state]))
      case 'SET_VRING_BASE': {
        const reset = this.#beginsAnew(state, message.value)
        state.base = message.value
        state.stoppedAt = undefined
        // One new driver is one reset, however many rings it begins.
        if (reset) for (const each of this.#rings) Object.assign(each, { stoppedAt: undefined, active: false, ambiguous: false })
        return { reset }
      }
      case 'GET_VRING_BASE': {
        const base = state.ring?.base ?? state.base
        const active = state.active || state.ring?.active === true
        Object.assign(state, { ring: undefined, kicked: false, base, stoppedAt: base, active })
        this.#platform.setKick(message.ring, undefined)
        this.#platform.setCall(message.ring, undefined)
        return reply({ request: Request.GET_VRING_BASE, ring: message.ring, value: base })
      }
      case 'SET_VRING_KICK': {
        if (!message.descriptor)
          throw new DeviceError('PROTOCOL', 'vhost-user: SET_VRING_KICK without a descriptor: polling is not offered')
        this.#platform.setKick(message.ring, one(message.request, descriptors))
        state.kicked = true
        return state.ring === undefined ? fault(this.#derive([state])) : {}
      }
      case 'SET_VRING_CALL':
        this.#platform.setCall(message.ring, message.descriptor ? one(message.request, descriptors) : undefined)
        // A running ring may have had nobody to call, or somebody else: an interrupt that was due meanwhile would never come again.
        if (state.ring !== undefined) this.#platform.notify(message.ring)
        return {}
      case 'SET_VRING_ERR':
        this.#platform.setError(message.ring, message.descriptor ? one(message.request, descriptors) : undefined)
        return {}
      case 'SET_VRING_ENABLE':
        state.enabled = message.value !== 0
        return {}
    }
  }

  /**
   * Whether a ring that was stopped starts somewhere else. A used index is back at 0 once in 65536 stops; that both data rings are is
   * so much rarer than a reset guest that it is taken for one, for a connection kept by mistake would hang and one cut would not.
   */
  #beginsAnew(state: RingState, base: number): boolean {
    if (state.stoppedAt === undefined) return false
    if (state.stoppedAt !== base) return true
    state.ambiguous = base === 0 && state.active
    return [RX_RING, TX_RING].every((ring) => this.#rings[ring]!.ambiguous)
  }

  /** A new table replaces the old one under running rings: new views first, then the old ones go. */
  #setMemory(regions: MemoryRegion[], descriptors: Descriptor[]): SessionResult {
    if (descriptors.length !== regions.length) {
      throw new DeviceError(
        'PROTOCOL',
        `vhost-user: SET_MEM_TABLE with ${regions.length} regions and ${descriptors.length} descriptors`,
      )
    }
    const memory = this.#platform.mapMemory(regions, descriptors.splice(0))
    const old = this.#memory
    this.#memory = memory
    const running = this.#rings.filter((state) => state.ring !== undefined)
    for (const state of running) state.base = state.ring!.base
    const failure = this.#derive(running)
    if (old !== undefined) this.#platform.unmapMemory(old)
    return fault(failure)
  }

  /**
   * Makes rings out of what is known about them, and interrupts the guest for each: what it was not told of before is forgotten with
   * the ring of before. A ring that the guest placed badly stops them all.
   */
  #derive(states: readonly RingState[]): DeviceError | undefined {
    try {
      for (const state of states) {
        if (this.#memory === undefined) throw new DeviceError('PROTOCOL', 'vhost-user: a ring was started before SET_MEM_TABLE')
        const features = {
          eventIdx: (this.#features & F_EVENT_IDX) !== 0n,
          indirect: (this.#features & F_INDIRECT_DESC) !== 0n,
        }
        state.active ||= state.ring?.active === true
        state.ring = new SplitRing(this.#memory, state, features, state.ring?.base ?? state.base)
        this.#platform.notify(this.#rings.indexOf(state))
      }
      return undefined
    } catch (error) {
      this.halt()
      return toDeviceError(error)
    }
  }

  #ringState(message: RingMessage): RingState {
    const state = this.#rings[message.ring]
    if (state === undefined) {
      throw new DeviceError('PROTOCOL', `vhost-user: ${message.request} for ring ${message.ring}, the last one is ${EVENT_RING}`)
    }
    return state
  }

  #readConfig({ offset, bytes }: { offset: number; bytes: Uint8Array }): Uint8Array {
    if (offset + bytes.length > this.#config.length) {
      throw new DeviceError(
        'PROTOCOL',
        `vhost-user: GET_CONFIG of ${bytes.length} bytes at ${hex(offset)}, the configuration space has ${this.#config.length}`,
      )
    }
    return this.#config.slice(offset, offset + bytes.length)
  }
}

type RingMessage = Extract<FrontEndMessage, { ring: number }>

const reply = (value: Parameters<typeof encodeReply>[0]): SessionResult => ({ reply: encodeReply(value) })
const fault = (error: DeviceError | undefined): SessionResult => (error === undefined ? {} : { fault: error })

function offered(request: string, features: bigint, offer: bigint): bigint {
  if ((features & ~offer) !== 0n) {
    throw new DeviceError('PROTOCOL', `vhost-user: ${request} ${hex(features)} goes beyond the offer ${hex(offer)}`)
  }
  return features
}

/** Takes the one descriptor out of the list, so that it is not closed with the rest. */
function one(request: string, descriptors: Descriptor[]): Descriptor {
  if (descriptors.length !== 1)
    throw new DeviceError('PROTOCOL', `vhost-user: ${request} with ${descriptors.length} descriptors, expected 1`)
  return descriptors.pop()!
}
