import { encodeFrontEndMessage } from '../src/front-end/message.js'
import { Chain } from '../src/machine/chain.js'
import { DEVICE_FEATURES, PROTOCOL_FEATURES } from '../src/machine/features.js'
import type { MappedRegion, MemoryRegion } from '../src/machine/memory.js'
import type { Descriptor } from '../src/machine/memory-table.js'
import { decodeMessageHeader, type FrontEndMessage, MESSAGE_HEADER_SIZE } from '../src/machine/message-format.js'
import { BackendSession, type Platform, type SessionResult } from '../src/machine/session.js'
import { FakeGuest, GUEST_BASE, MEMORY_SIZE, USER_BASE } from './fake-guest.js'

/** Writes down what the session asks for. */
export class RecordingPlatform implements Platform {
  readonly closed: Descriptor[] = []
  /** Those that a region was mapped from: the platform closes them. */
  readonly used: Descriptor[] = []
  readonly mapped: MappedRegion[] = []
  readonly unmapped: MappedRegion[] = []
  readonly kicks = new Map<number, Descriptor | undefined>()
  readonly calls = new Map<number, Descriptor | undefined>()
  /** The bytes of the next region. */
  bytes: (region: MemoryRegion) => Uint8Array = ({ size }) => new Uint8Array(size)
  mapRegion(region: MemoryRegion, descriptor: Descriptor): MappedRegion {
    this.used.push(descriptor)
    const mapped = { ...region, windows: [this.bytes(region)] }
    this.mapped.push(mapped)
    return mapped
  }
  unmapRegion(region: MappedRegion): void {
    this.unmapped.push(region)
  }
  setKick(ring: number, descriptor: Descriptor | undefined): void {
    this.kicks.set(ring, descriptor)
  }
  setCall(ring: number, descriptor: Descriptor | undefined): void {
    this.calls.set(ring, descriptor)
  }
  setError(_ring: number, _descriptor: Descriptor | undefined): void {}
  readonly notified: number[] = []
  notify(ring: number): void {
    this.notified.push(ring)
  }
  closeDescriptor(descriptor: Descriptor): void {
    this.closed.push(descriptor)
  }
}

/** Where the fake guest lives. */
export const REGION: MemoryRegion = { guestAddress: GUEST_BASE, userAddress: USER_BASE, size: MEMORY_SIZE, fileOffset: 0 }

/** A conversation without a socket: messages in, and what the session made of them. */
export class SessionScene {
  readonly guest = new FakeGuest()
  readonly platform: RecordingPlatform
  readonly session: BackendSession

  constructor(platform = new RecordingPlatform()) {
    this.platform = platform
    platform.bytes = ({ guestAddress, size }) => (guestAddress === GUEST_BASE ? this.guest.memoryBytes : new Uint8Array(size))
    this.session = new BackendSession(platform, Uint8Array.of(42, 0, 0, 0, 0, 0, 0, 0))
  }

  tell(message: FrontEndMessage, { descriptors = [] as Descriptor[], needReply = false } = {}): SessionResult {
    return this.tellBytes(encodeFrontEndMessage(message, { needReply }), descriptors)
  }

  tellBytes(bytes: Uint8Array, descriptors: Descriptor[] = []): SessionResult {
    return this.session.receive(decodeMessageHeader(bytes), bytes.subarray(MESSAGE_HEADER_SIZE), descriptors)
  }

  startRing(ring: number, value = 0, enable = true): void {
    const { size, desc, avail, used } = (ring === 0 ? this.guest.rx : this.guest.tx).layout
    this.tell({ request: 'SET_VRING_NUM', ring, value: size })
    this.tell({ request: 'SET_VRING_BASE', ring, value })
    this.tell({ request: 'SET_VRING_ADDR', ring, flags: 0, desc, used, avail, log: 0 })
    this.tell({ request: 'SET_VRING_KICK', ring, descriptor: true }, { descriptors: [{ kick: ring }] })
    if (enable) this.tell({ request: 'SET_VRING_ENABLE', ring, value: 1 })
  }

  negotiate(protocolFeatures = PROTOCOL_FEATURES): void {
    this.tell({ request: 'SET_PROTOCOL_FEATURES', features: protocolFeatures })
    this.tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
  }

  /** From nothing to running rings. */
  start(): void {
    this.negotiate()
    this.tell({ request: 'SET_MEM_TABLE', regions: [REGION] }, { descriptors: [{}] })
    this.startRing(0)
    this.startRing(1)
  }

  /** Takes and gives back one chain of the transmit ring; false if there is none to take. */
  turnTx(): boolean {
    this.guest.send({})
    const chain = new Chain()
    const tx = this.session.tx
    if (tx?.pop(chain) !== true) return false
    tx.push(chain.head, 0)
    tx.publish()
    return true
  }
}

/** What a reply says after its header. */
export const u64 = (reply: Uint8Array | undefined): bigint => Buffer.from(reply!).readBigUInt64LE(MESSAGE_HEADER_SIZE)
export const base = (reply: Uint8Array | undefined): number => Buffer.from(reply!).readUInt32LE(MESSAGE_HEADER_SIZE + 4)
