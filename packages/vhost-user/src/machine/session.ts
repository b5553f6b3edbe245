import { transition } from '@upcall/foundation/machine'
import { EVENT_RING, RING_COUNT, RX_RING, TX_RING } from './device.js'
import { DeviceError, hex, protocolError } from './errors.js'
import {
  DEVICE_FEATURES,
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_PROTOCOL_FEATURES,
  P_CONFIGURE_MEM_SLOTS,
  P_REPLY_ACK,
  P_XEN_MMAP,
  PROTOCOL_FEATURES,
} from './features.js'
import { type Descriptor, type LetGo, MemoryTable, type RegionMapper } from './memory-table.js'
import { decodeFrontEndMessage, encodeReply } from './message.js'
import { type DescribedRegion, type FrontEndMessage, MAX_MEMORY_SLOTS, type MessageHeader, Request } from './message-format.js'
import { baseOf, INITIAL_RING, type RingContext, type RingEvent, type RingState, ringTable } from './ring-state.js'
import type { RingLayout, SplitRing } from './vring.js'

/** What the session needs done to the outside world. Every call is synchronous. Descriptors handed over belong to the callee. */
export interface Platform extends RegionMapper {
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
  /** What the front end asked for was not done. It has been told, and nothing has changed. */
  readonly refused?: DeviceError
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
 * when the VM is paused and when the guest is reset. A front end that sends RESET_DEVICE tells them apart. Of another, only the
 * SET_VRING_BASE that follows tells: it names the place where the ring stopped, or another.
 */
export class BackendSession {
  readonly #platform: Platform
  readonly #config: Uint8Array
  readonly #rings: readonly Ring[]
  #features = 0n
  #protocolFeatures = 0n
  readonly #memory: MemoryTable
  /** RESET_DEVICE has come: this front end tells of every reset. QEMU before 8.2 negotiates the feature and never does. */
  #resetsAreTold = false

  /** @param config the device's configuration space (8 bytes for vsock: the guest's CID). */
  constructor(platform: Platform, config: Uint8Array) {
    this.#platform = platform
    this.#config = config
    this.#memory = new MemoryTable(platform)
    this.#rings = Array.from({ length: RING_COUNT }, (_, number) => ({
      number,
      state: INITIAL_RING,
      layout: NO_LAYOUT,
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

  /** Why the rings are not worked on: their memory has left the table, and may come back with the next message. */
  get displaced(): DeviceError | undefined {
    for (const { state } of this.#rings) if (state.kind === 'displaced') return state.error
    return undefined
  }

  /**
   * Takes one message with the descriptors that came along; those that it does not need are closed. Where the front end is at fault: a
   * message that wants to be acknowledged is refused (`SessionResult.refused`), and any other throws `PROTOCOL` or `MEMORY_TABLE`, which
   * ends the conversation.
   */
  receive(header: MessageHeader, payload: Uint8Array, descriptors: Descriptor[]): SessionResult {
    const { request } = header
    // SET_PROTOCOL_FEATURES may be what negotiates it.
    const wanted = () => header.needReply && this.#negotiated(P_REPLY_ACK)
    try {
      const message = decodeFrontEndMessage(header, payload, { xen: this.#negotiated(P_XEN_MMAP) })
      const answer = this.#handle(message, descriptors)
      return answer.reply === undefined && wanted() ? { ...answer, ...reply({ request, u64: 0n }) } : answer
    } catch (error) {
      if (!wanted() || ANSWERED.has(request) || !(error instanceof DeviceError)) throw error
      return { refused: error, ...reply({ request, u64: 1n }) }
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
    return this.#stepAll(({ state }) => state.kind === 'halted', { type: 'restart' })
  }

  /** The conversation is over: gives back everything that was taken. */
  close(): void {
    for (const ring of this.#rings) {
      ring.state = INITIAL_RING
      this.#platform.setKick(ring.number, undefined)
      this.#platform.setCall(ring.number, undefined)
      this.#platform.setError(ring.number, undefined)
    }
    this.#memory.clear()
  }

  #live(number: number): SplitRing | undefined {
    const { state, enabled } = this.#rings[number]!
    return state.kind === 'running' && enabled ? state.ring : undefined
  }

  #negotiated(feature: bigint): boolean {
    return (this.#protocolFeatures & feature) !== 0n
  }

  get #offer(): bigint {
    return this.#platform.mapXenRegion === undefined ? PROTOCOL_FEATURES : PROTOCOL_FEATURES | P_XEN_MMAP
  }

  #handle(message: FrontEndMessage, descriptors: Descriptor[]): SessionResult {
    switch (message.request) {
      case 'GET_FEATURES':
        return reply({ request: Request.GET_FEATURES, u64: DEVICE_FEATURES })
      case 'GET_PROTOCOL_FEATURES':
        return reply({ request: Request.GET_PROTOCOL_FEATURES, u64: this.#offer })
      case 'SET_FEATURES':
        return this.#setFeatures(offered('SET_FEATURES', message.features, DEVICE_FEATURES))
      case 'SET_PROTOCOL_FEATURES':
        this.#protocolFeatures = offered('SET_PROTOCOL_FEATURES', message.features, this.#offer)
        return {}
      case 'SET_OWNER':
      case 'RESET_OWNER': // Obsolete, and defined as: ignore it.
        return {}
      case 'GET_QUEUE_NUM':
        return reply({ request: Request.GET_QUEUE_NUM, u64: BigInt(RING_COUNT) })
      case 'GET_CONFIG':
        return this.#readConfig(message)
      case 'SET_CONFIG':
        throw protocolError('SET_CONFIG', 'the configuration of a vsock device is read-only')
      case 'RESET_DEVICE':
        return this.#resetDevice()
      case 'GET_MAX_MEM_SLOTS':
      case 'ADD_MEM_REG':
      case 'REM_MEM_REG':
        if (!this.#negotiated(P_CONFIGURE_MEM_SLOTS))
          throw protocolError(message.request, 'CONFIGURE_MEM_SLOTS was not negotiated')
        return this.#handleSlot(message, descriptors)
      case 'SET_MEM_TABLE':
        return this.#setMemory(message.regions, descriptors)
      default:
        return this.#handleRing(message, this.#ring(message), descriptors)
    }
  }

  #handleRing(message: RingMessage, ring: Ring, descriptors: Descriptor[]): SessionResult {
    switch (message.request) {
      case 'SET_VRING_NUM':
        return this.#layOut(ring, { ...ring.layout, size: message.value })
      case 'SET_VRING_ADDR': {
        const { desc, avail, used } = message
        return this.#layOut(ring, { ...ring.layout, desc, avail, used })
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

  #handleSlot(message: SlotMessage, descriptors: Descriptor[]): SessionResult {
    switch (message.request) {
      case 'GET_MAX_MEM_SLOTS':
        return reply({ request: Request.GET_MAX_MEM_SLOTS, u64: BigInt(MAX_MEMORY_SLOTS) })
      case 'ADD_MEM_REG':
        this.#memory.add(message.region, descriptors)
        return this.#moved({ more: true })
      case 'REM_MEM_REG':
        if (descriptors.length > 1)
          throw protocolError('REM_MEM_REG', `there are ${descriptors.length} descriptors, not 1 at most`)
        return this.#moved({ more: true }, this.#memory.remove(message.region))
    }
  }

  #setMemory(regions: DescribedRegion[], descriptors: Descriptor[]): SessionResult {
    return this.#moved({ more: false }, this.#memory.replace(regions, descriptors))
  }

  /** There is another table under running rings: they go over to the new views first, then the old ones go. */
  #moved({ more }: { more: boolean }, letGo?: LetGo): SessionResult {
    const fault = this.#stepAll(isPlaced, { type: 'place', more })
    letGo?.()
    return fault === undefined ? {} : { fault }
  }

  /** Another layout counts at once. */
  #layOut(ring: Ring, layout: RingLayout): SessionResult {
    ring.layout = layout
    return isPlaced(ring) ? this.#step(ring, { type: 'place', more: ring.state.kind === 'displaced' }) : {}
  }

  /** Other features count at once, too. */
  #setFeatures(features: bigint): SessionResult {
    const before = this.#features
    this.#features = features
    // A front end that does not know SET_VRING_ENABLE. The rings stay enabled if it changes its mind.
    if ((features & F_PROTOCOL_FEATURES) === 0n) for (const ring of this.#rings) ring.enabled = true
    return features === before ? {} : this.#moved({ more: true })
  }

  /**
   * Back to how the device was when the front end connected, but for what belongs to the conversation: the protocol features, the memory
   * and the descriptors by which the front end is told of interrupts and errors. QEMU does not send these again.
   */
  #resetDevice(): SessionResult {
    this.#resetsAreTold = true
    this.#features = 0n
    let reset = false
    for (const ring of this.#rings) {
      ring.layout = NO_LAYOUT
      ring.enabled = false
      this.#platform.setKick(ring.number, undefined)
      if (this.#step(ring, { type: 'reset' }).reset === true) reset = true
    }
    return { reset }
  }

  /** One event for each ring of a kind, up to the first fault. */
  #stepAll(applies: (ring: Ring) => boolean, event: RingEvent): DeviceError | undefined {
    for (const ring of this.#rings.filter(applies)) {
      const { fault } = this.#step(ring, event)
      if (fault !== undefined) return fault
    }
    return undefined
  }

  #step(ring: Ring, event: RingEvent): SessionResult {
    const context: RingContext = {
      now: 0,
      effects: [],
      memory: this.#memory.memory,
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
          if (this.#resetsAreTold) break
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

  /** A range outside the configuration space is answered with no bytes, which is how a back end tells of an error. */
  #readConfig({ offset, flags, bytes }: { offset: number; flags: number; bytes: Uint8Array }): SessionResult {
    const answer = (found: Uint8Array) => reply({ request: Request.GET_CONFIG, offset, flags, bytes: found })
    if (offset + bytes.length <= this.#config.length) return answer(this.#config.slice(offset, offset + bytes.length))
    const what = `it reads ${bytes.length} bytes at ${hex(offset)}, and the configuration space has ${this.#config.length}`
    return { ...answer(new Uint8Array(0)), refused: protocolError('GET_CONFIG', what) }
  }
}

type RingMessage = Extract<FrontEndMessage, { ring: number }>
type SlotMessage = Extract<FrontEndMessage, { request: 'GET_MAX_MEM_SLOTS' | 'ADD_MEM_REG' | 'REM_MEM_REG' }>

const NO_LAYOUT: RingLayout = { size: 0, desc: 0, avail: 0, used: 0 }

/** Requests that have an answer of their own, in which there is no place for a refusal. */
const ANSWERED: ReadonlySet<number> = new Set([
  Request.GET_FEATURES,
  Request.GET_PROTOCOL_FEATURES,
  Request.GET_VRING_BASE,
  Request.GET_QUEUE_NUM,
  Request.GET_CONFIG,
  Request.GET_MAX_MEM_SLOTS,
])

/** Whether it lies somewhere in memory, or did. */
const isPlaced = ({ state }: Ring): boolean => state.kind === 'running' || state.kind === 'displaced'

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
