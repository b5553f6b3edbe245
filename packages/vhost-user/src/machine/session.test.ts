import { beforeEach, describe, expect, test } from 'vitest'
import { FakeGuest, GUEST_BASE, MEMORY_SIZE, USER_BASE } from '../../testing/fake-guest.js'
import { encodeFrontEndMessage } from '../front-end/message.js'
import { Chain } from './chain.js'
import { DEVICE_FEATURES, F_EVENT_IDX, F_PROTOCOL_FEATURES, F_VERSION_1, P_CONFIG, P_REPLY_ACK } from './features.js'
import type { GuestMemory } from './memory.js'
import { decodeMessageHeader, type FrontEndMessage, MESSAGE_HEADER_SIZE } from './message-format.js'
import { BackendSession, type Descriptor, type Platform } from './session.js'

/** Writes down what the session asks for. */
class RecordingPlatform implements Platform {
  readonly closed: Descriptor[] = []
  readonly mapped: GuestMemory[] = []
  readonly unmapped: GuestMemory[] = []
  readonly kicks = new Map<number, Descriptor | undefined>()
  readonly calls = new Map<number, Descriptor | undefined>()
  next: () => GuestMemory = () => new FakeGuest().memory
  mapMemory(): GuestMemory {
    const memory = this.next()
    this.mapped.push(memory)
    return memory
  }
  unmapMemory(memory: GuestMemory): void {
    this.unmapped.push(memory)
  }
  setKick(ring: number, descriptor: Descriptor | undefined): void {
    this.kicks.set(ring, descriptor)
  }
  setCall(ring: number, descriptor: Descriptor | undefined): void {
    this.calls.set(ring, descriptor)
  }
  setError(): void {}
  readonly notified: number[] = []
  notify(ring: number): void {
    this.notified.push(ring)
  }
  closeDescriptor(descriptor: Descriptor): void {
    this.closed.push(descriptor)
  }
}

let guest: FakeGuest
let platform: RecordingPlatform
let session: BackendSession
const region = { guestAddress: GUEST_BASE, userAddress: USER_BASE, size: MEMORY_SIZE, fileOffset: 0 }

beforeEach(() => {
  guest = new FakeGuest()
  platform = new RecordingPlatform()
  platform.next = () => guest.memory
  session = new BackendSession(platform, Uint8Array.of(42, 0, 0, 0, 0, 0, 0, 0))
})

function tell(message: FrontEndMessage, { descriptors = [] as Descriptor[], needReply = false } = {}) {
  const bytes = encodeFrontEndMessage(message, { needReply })
  return session.receive(decodeMessageHeader(bytes), bytes.subarray(MESSAGE_HEADER_SIZE), descriptors)
}

const u64 = (reply: Uint8Array | undefined): bigint => Buffer.from(reply!).readBigUInt64LE(MESSAGE_HEADER_SIZE)
const base = (reply: Uint8Array | undefined): number => Buffer.from(reply!).readUInt32LE(MESSAGE_HEADER_SIZE + 4)

function startRing(ring: number, value = 0, enable = true): void {
  const { size, desc, avail, used } = (ring === 0 ? guest.rx : guest.tx).layout
  tell({ request: 'SET_VRING_NUM', ring, value: size })
  tell({ request: 'SET_VRING_BASE', ring, value })
  tell({ request: 'SET_VRING_ADDR', ring, flags: 0, desc, used, avail, log: 0 })
  tell({ request: 'SET_VRING_KICK', ring, descriptor: true }, { descriptors: [{ kick: ring }] })
  if (enable) tell({ request: 'SET_VRING_ENABLE', ring, value: 1 })
}

function start(): void {
  tell({ request: 'SET_PROTOCOL_FEATURES', features: P_CONFIG | P_REPLY_ACK })
  tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
  tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
  startRing(0)
  startRing(1)
}

/** Takes and gives back one chain of the transmit ring. */
function turnTx(): void {
  guest.send({})
  const chain = new Chain()
  const tx = session.tx!
  expect(tx.pop(chain)).toBe(true)
  tx.push(chain.head, 0)
  tx.publish()
}

describe('negotiation', () => {
  test('offers what is implemented', () => {
    expect(u64(tell({ request: 'GET_FEATURES' }).reply)).toBe(0x1_7000_0002n)
    expect(u64(tell({ request: 'GET_PROTOCOL_FEATURES' }).reply)).toBe(0x208n)
  })

  test.each(['SET_FEATURES', 'SET_PROTOCOL_FEATURES'] as const)('%s beyond the offer ends the conversation', (request) => {
    expect(() => tell({ request, features: 1n << 15n })).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  })

  test('the configuration space is the CID', () => {
    const { reply } = tell({ request: 'GET_CONFIG', offset: 0, flags: 0, bytes: new Uint8Array(8) })
    expect([...reply!.subarray(MESSAGE_HEADER_SIZE)]).toEqual([0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0])
  })

  test('the configuration space ends after 8 bytes, and is read-only', () => {
    expect(() => tell({ request: 'GET_CONFIG', offset: 4, flags: 0, bytes: new Uint8Array(8) })).toThrow(/has 8/)
    expect(() => tell({ request: 'SET_CONFIG', offset: 0, flags: 0, bytes: new Uint8Array(8) })).toThrow(/read-only/)
  })

  test('REPLY_ACK: asked for and negotiated, an answer of 0; not negotiated, none', () => {
    expect(tell({ request: 'SET_OWNER' }, { needReply: true }).reply).toBeUndefined()
    tell({ request: 'SET_PROTOCOL_FEATURES', features: P_REPLY_ACK })
    expect(u64(tell({ request: 'SET_OWNER' }, { needReply: true }).reply)).toBe(0n)
    expect(tell({ request: 'SET_OWNER' }).reply).toBeUndefined()
  })
})

describe('rings', () => {
  test('run once started and enabled, in this order', () => {
    tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    startRing(1, 0, false)
    expect(session.tx).toBeUndefined()
    tell({ request: 'SET_VRING_ENABLE', ring: 1, value: 1 })
    expect(session.tx).toBeDefined()
    tell({ request: 'SET_VRING_ENABLE', ring: 1, value: 0 })
    expect(session.tx).toBeUndefined()
    expect(session.running).toBe(false)
  })

  test('without PROTOCOL_FEATURES they need no ENABLE', () => {
    tell({ request: 'SET_FEATURES', features: F_VERSION_1 })
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    startRing(1, 0, false)
    expect(session.tx).toBeDefined()
  })

  test('without VERSION_1 (legacy) they are the same', () => {
    tell({ request: 'SET_FEATURES', features: F_EVENT_IDX | F_PROTOCOL_FEATURES })
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    startRing(1)
    turnTx()
    expect(guest.tx.usedIndex).toBe(1)
  })

  test('GET_VRING_BASE stops the ring, says where, and lets go of its descriptors', () => {
    start()
    turnTx()
    expect(base(tell({ request: 'GET_VRING_BASE', ring: 1, value: 0 }).reply)).toBe(1)
    expect(session.tx).toBeUndefined()
    expect(platform.kicks.get(1)).toBeUndefined()
  })

  test('stop and cont: the same base does not reset, and the ring goes on', () => {
    start()
    turnTx()
    tell({ request: 'GET_VRING_BASE', ring: 1, value: 0 })
    expect(tell({ request: 'SET_VRING_BASE', ring: 1, value: 1 }).reset).toBeUndefined()
    startRing(1, 1)
    turnTx()
    expect(guest.tx.usedIndex).toBe(2)
  })

  test('reset: a base that begins at 0 again is another driver', () => {
    start()
    turnTx()
    tell({ request: 'GET_VRING_BASE', ring: 1, value: 0 })
    tell({ request: 'GET_VRING_BASE', ring: 0, value: 0 })
    expect(tell({ request: 'SET_VRING_BASE', ring: 1, value: 0 }).reset).toBe(true)
    expect(tell({ request: 'SET_VRING_BASE', ring: 0, value: 5 }).reset).toBeUndefined()
  })

  test('reset: both rings at 0 again after use is another driver, one of them is chance', () => {
    start()
    const chain = new Chain()
    const drivers = [guest.rx, guest.tx]
    const live = (ring: number) => (ring === 0 ? session.rx : session.tx)!
    for (const [ring, driver] of drivers.entries()) {
      driver.setDescriptor(0, { address: GUEST_BASE, length: 1, flags: 0, next: 0 })
      // All the way round, to where it began.
      for (let i = 0; i < 65_536; i++) {
        driver.offer(0)
        live(ring).pop(chain)
      }
      expect(base(tell({ request: 'GET_VRING_BASE', ring, value: 0 }).reply)).toBe(0)
    }
    expect(tell({ request: 'SET_VRING_BASE', ring: 0, value: 0 }).reset).toBeUndefined()
    expect(tell({ request: 'SET_VRING_BASE', ring: 1, value: 0 }).reset).toBe(true)
  })

  test('a pause before anything was sent does not reset', () => {
    start()
    for (const ring of [0, 1]) tell({ request: 'GET_VRING_BASE', ring, value: 0 })
    for (const ring of [0, 1]) expect(tell({ request: 'SET_VRING_BASE', ring, value: 0 }).reset).toBeUndefined()
  })

  test('a first base does not reset, whatever it is', () => {
    expect(tell({ request: 'SET_VRING_BASE', ring: 1, value: 77 }).reset).toBeUndefined()
  })

  test('SET_VRING_CALL replaces the last one; without a descriptor there is none', () => {
    start()
    const [first, second] = [{}, {}]
    tell({ request: 'SET_VRING_CALL', ring: 0, descriptor: true }, { descriptors: [first] })
    tell({ request: 'SET_VRING_CALL', ring: 0, descriptor: true }, { descriptors: [second] })
    expect(platform.calls.get(0)).toBe(second)
    tell({ request: 'SET_VRING_CALL', ring: 0, descriptor: false })
    expect(platform.calls.get(0)).toBeUndefined()
    expect(platform.closed).toEqual([])
  })

  test('a ring that begins interrupts the guest, although the front end said before whom to call', () => {
    start()
    tell({ request: 'GET_VRING_BASE', ring: 1, value: 0 })
    tell({ request: 'SET_VRING_CALL', ring: 1, descriptor: true }, { descriptors: [{}] })
    platform.notified.length = 0
    startRing(1)
    expect(platform.notified).toEqual([1])
  })

  test('a ring that the guest placed badly is a fault, not the end of the conversation', () => {
    tell({ request: 'SET_PROTOCOL_FEATURES', features: P_REPLY_ACK })
    tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    tell({ request: 'SET_VRING_NUM', ring: 1, value: 100 })
    const options = { descriptors: [{}], needReply: true }
    const { fault, reply } = tell({ request: 'SET_VRING_KICK', ring: 1, descriptor: true }, options)
    expect(fault?.code).toBe('RING_SIZE')
    expect(u64(reply)).toBe(0n)
    expect(session.tx).toBeUndefined()
  })

  test('polling, unknown rings and a start before SET_MEM_TABLE are refused', () => {
    expect(() => tell({ request: 'SET_VRING_KICK', ring: 0, descriptor: false })).toThrow(/polling/)
    expect(() => tell({ request: 'SET_VRING_NUM', ring: 3, value: 1 })).toThrow(/ring 3/)
    expect(tell({ request: 'SET_VRING_KICK', ring: 0, descriptor: true }, { descriptors: [{}] }).fault?.message).toMatch(
      /before SET_MEM_TABLE/,
    )
  })
})

describe('a new memory table under running rings', () => {
  test('the rings go on in the new memory, and the old goes after', () => {
    start()
    turnTx()
    const old = guest
    const moved = new FakeGuest()
    moved.memoryBytes.set(old.memoryBytes)
    platform.next = () => {
      expect(platform.unmapped).toEqual([])
      return moved.memory
    }
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    expect(platform.unmapped).toEqual([old.memory])
    expect(session.tx!.base).toBe(1)
    // Nothing more is written into the old memory.
    old.memoryBytes.fill(0xee)
    const chain = new Chain()
    moved.tx.offer(0)
    moved.tx.offer(0)
    session.tx!.pop(chain)
    session.tx!.push(chain.head, 0)
    session.tx!.publish()
    expect(moved.tx.usedIndex).toBe(2)
    expect(old.memoryBytes.every((byte) => byte === 0xee)).toBe(true)
  })

  test('the guest is interrupted: what it missed before is not known any more', () => {
    start()
    platform.notified.length = 0
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    expect(platform.notified).toEqual([0, 1])
  })

  test('a table without the rings is a fault', () => {
    start()
    platform.next = () => new FakeGuest().memory
    const elsewhere = { ...region, userAddress: 0x1000, windows: [new Uint8Array(MEMORY_SIZE)] }
    platform.next = () => new (guest.memory.constructor as typeof GuestMemory)([elsewhere])
    expect(tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] }).fault?.code).toBe('RING_ADDRESS')
    expect(session.running).toBe(false)
  })

  test('regions and descriptors must be equal in number, and those sent are closed', () => {
    const [one, two] = [{}, {}]
    expect(() => tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [one, two] })).toThrow(
      /1 regions and 2 descriptors/,
    )
    expect(platform.closed).toEqual([one, two])
  })
})

describe('descriptors', () => {
  test('those that come with a message that needs none are closed', () => {
    const stray = {}
    tell({ request: 'SET_OWNER' }, { descriptors: [stray] })
    expect(platform.closed).toEqual([stray])
  })

  test('close gives back memory and kicks', () => {
    start()
    session.close()
    expect(platform.unmapped).toEqual([guest.memory])
    expect([...platform.kicks.values()]).toEqual([undefined, undefined, undefined])
    expect(session.running).toBe(false)
  })
})

describe('halt and restart', () => {
  test('halted rings rest where they are; restart goes on there', () => {
    start()
    turnTx()
    session.halt()
    expect(session.running).toBe(false)
    expect(session.restart()).toBeUndefined()
    expect([session.running, session.tx!.base]).toEqual([true, 1])
  })

  test('GET_VRING_BASE of a halted ring still says where it was', () => {
    start()
    turnTx()
    session.halt()
    expect(base(tell({ request: 'GET_VRING_BASE', ring: 1, value: 0 }).reply)).toBe(1)
  })
})
