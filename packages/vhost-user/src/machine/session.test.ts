import { beforeEach, describe, expect, test } from 'vitest'
import { FakeGuest, GUEST_BASE } from '../../testing/fake-guest.js'
import { base, REGION as region, SessionScene, u64 } from '../../testing/session-scene.js'
import { Chain } from './chain.js'
import { DEVICE_FEATURES, F_EVENT_IDX, F_PROTOCOL_FEATURES, F_VERSION_1, P_REPLY_ACK } from './features.js'
import { frame, MESSAGE_HEADER_SIZE } from './message-format.js'

let scene: SessionScene
let { guest, platform, session } = new SessionScene()
const tell: SessionScene['tell'] = (...message) => scene.tell(...message)
const startRing: SessionScene['startRing'] = (...how) => scene.startRing(...how)
const start = () => scene.start()
const turnTx = () => scene.turnTx()

beforeEach(() => {
  scene = new SessionScene()
  ;({ guest, platform, session } = scene)
})

describe('negotiation', () => {
  test('offers what is implemented', () => {
    expect(u64(tell({ request: 'GET_FEATURES' }).reply)).toBe(0x1_7000_0002n)
    expect(u64(tell({ request: 'GET_PROTOCOL_FEATURES' }).reply)).toBe(0xa209n)
  })

  test.each(['SET_FEATURES', 'SET_PROTOCOL_FEATURES'] as const)('%s beyond the offer ends the conversation', (request) => {
    expect(() => tell({ request, features: 1n << 17n })).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
  })

  test('the configuration space is the CID', () => {
    const { reply } = tell({ request: 'GET_CONFIG', offset: 0, flags: 0, bytes: new Uint8Array(8) })
    expect([...reply!.subarray(MESSAGE_HEADER_SIZE)]).toEqual([0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0])
  })

  test('the configuration space ends after 8 bytes, and is read-only', () => {
    const { reply, refused } = tell({ request: 'GET_CONFIG', offset: 4, flags: 0, bytes: new Uint8Array(8) })
    expect([...reply!.subarray(MESSAGE_HEADER_SIZE)]).toEqual([4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    expect(refused?.message).toMatch(/has 8/)
    expect(() => tell({ request: 'SET_CONFIG', offset: 0, flags: 0, bytes: new Uint8Array(8) })).toThrow(/read-only/)
  })

  test('REPLY_ACK: asked for and negotiated, an answer of 0; not negotiated, none', () => {
    expect(tell({ request: 'SET_OWNER' }, { needReply: true }).reply).toBeUndefined()
    tell({ request: 'SET_PROTOCOL_FEATURES', features: P_REPLY_ACK })
    expect(u64(tell({ request: 'SET_OWNER' }, { needReply: true }).reply)).toBe(0n)
    expect(tell({ request: 'SET_OWNER' }).reply).toBeUndefined()
  })
})

describe('what the device has', () => {
  test('three rings', () => {
    expect(u64(tell({ request: 'GET_QUEUE_NUM' }).reply)).toBe(3n)
  })
})

describe('a request that cannot be met', () => {
  const impossible: [string, () => ReturnType<SessionScene['tell']>][] = [
    ['features beyond the offer', () => tell({ request: 'SET_FEATURES', features: 1n << 63n }, { needReply: true })],
    ['SET_CONFIG', () => tell({ request: 'SET_CONFIG', offset: 0, flags: 0, bytes: new Uint8Array(8) }, { needReply: true })],
    ['polling', () => tell({ request: 'SET_VRING_KICK', ring: 0, descriptor: false }, { needReply: true })],
    ['a ring that is not there', () => tell({ request: 'SET_VRING_NUM', ring: 3, value: 1 }, { needReply: true })],
    ['an empty memory table', () => tell({ request: 'SET_MEM_TABLE', regions: [] }, { needReply: true })],
    ['a request that is not known', () => scene.tellBytes(frame(39, new Uint8Array(8), { needReply: true }))],
    ['a payload that is too short', () => scene.tellBytes(frame(2, new Uint8Array(4), { needReply: true }))],
  ]

  test.each(impossible)('%s: is answered with 1 if it is to be acknowledged, and nothing has changed', (_, ask) => {
    start()
    const { reply, refused, ...rest } = ask()
    expect(u64(reply)).toBe(1n)
    expect(refused).toMatchObject({ name: 'DeviceError' })
    expect(rest).toEqual({})
    expect(session.running).toBe(true)
    expect(session.features).toBe(DEVICE_FEATURES)
    turnTx()
  })

  test.each(impossible)('%s: ends the conversation of a front end that did not negotiate acknowledgements', (_, ask) => {
    expect(ask).toThrow(expect.objectContaining({ name: 'DeviceError' }))
  })

  test('GET_VRING_BASE of a ring that is not there ends the conversation: its answer has no place for a refusal', () => {
    start()
    expect(() => tell({ request: 'GET_VRING_BASE', ring: 3, value: 0 }, { needReply: true })).toThrow(/ring 3/)
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

  test('which were enabled without PROTOCOL_FEATURES stay enabled', () => {
    tell({ request: 'SET_FEATURES', features: F_VERSION_1 })
    tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    startRing(1, 0, false)
    expect(session.tx).toBeDefined()
  })

  test('before SET_FEATURES they are disabled', () => {
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    startRing(1, 0, false)
    expect(session.tx).toBeUndefined()
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

  /** Both rings have gone all the way round, to where they began. */
  function turnRound(): void {
    start()
    const chain = new Chain()
    const drivers = [guest.rx, guest.tx]
    const live = (ring: number) => (ring === 0 ? session.rx : session.tx)!
    for (const [ring, driver] of drivers.entries()) {
      driver.setDescriptor(0, { address: GUEST_BASE, length: 1, flags: 0, next: 0 })
      for (let i = 0; i < 65_536; i++) {
        driver.offer(0)
        live(ring).pop(chain)
      }
      expect(base(tell({ request: 'GET_VRING_BASE', ring, value: 0 }).reply)).toBe(0)
    }
  }

  test('a front end that tells of resets is not second-guessed: both rings at 0 again is a pause', () => {
    tell({ request: 'RESET_DEVICE' })
    turnRound()
    for (const ring of [0, 1]) expect(tell({ request: 'SET_VRING_BASE', ring, value: 0 }).reset).toBeUndefined()
  })

  test('reset: both rings at 0 again after use is another driver, one of them is chance', () => {
    turnRound()
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

  test('other features and another size count at once, also for a ring that runs', () => {
    tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES & ~F_EVENT_IDX })
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    startRing(1)
    turnTx()
    guest.tx.availIndex = 1
    session.tx!.enableKicks()
    expect(guest.tx.availEvent).toBe(0)
    tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
    session.tx!.enableKicks()
    expect(guest.tx.availEvent).toBe(1)
    platform.notified.length = 0
    tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES })
    expect(platform.notified).toEqual([])
    tell({ request: 'SET_VRING_NUM', ring: 1, value: 64 })
    expect([session.tx!.size, session.tx!.base]).toEqual([64, 1])
    expect(tell({ request: 'SET_VRING_NUM', ring: 1, value: 100 }).fault?.code).toBe('RING_SIZE')
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
      /the memory table is empty/,
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
    platform.bytes = () => {
      expect(platform.unmapped).toEqual([])
      return moved.memoryBytes
    }
    tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    expect(platform.unmapped).toEqual([platform.mapped[0]])
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
    const regions = [{ ...region, userAddress: 0x1000 }]
    expect(tell({ request: 'SET_MEM_TABLE', regions }, { descriptors: [{}] }).fault?.code).toBe('RING_ADDRESS')
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

describe('RESET_DEVICE', () => {
  test('the device is as it was when the front end connected, and the old driver is gone', () => {
    start()
    turnTx()
    expect(tell({ request: 'RESET_DEVICE' }).reset).toBe(true)
    expect([session.running, session.rx, session.tx, session.features]).toEqual([false, undefined, undefined, 0n])
    expect(platform.kicks.get(1)).toBeUndefined()
    expect(base(tell({ request: 'GET_VRING_BASE', ring: 1, value: 0 }).reply)).toBe(0)
    // Neither enabled nor placed any more.
    tell({ request: 'SET_VRING_KICK', ring: 1, descriptor: true }, { descriptors: [{}] })
    expect(session.tx).toBeUndefined()
  })

  test('what belongs to the conversation stays: memory, protocol features, and whom to interrupt', () => {
    start()
    const call = {}
    tell({ request: 'SET_VRING_CALL', ring: 1, descriptor: true }, { descriptors: [call] })
    tell({ request: 'RESET_DEVICE' })
    expect(platform.unmapped).toEqual([])
    expect(platform.calls.get(1)).toBe(call)
    expect(u64(tell({ request: 'SET_FEATURES', features: DEVICE_FEATURES }, { needReply: true }).reply)).toBe(0n)
    guest.tx.startAt(0)
    for (const ring of [0, 1]) startRing(ring)
    turnTx()
  })

  test('QEMU stops the rings first: one reset in all', () => {
    start()
    turnTx()
    const bases = [0, 1].map((ring) => base(tell({ request: 'GET_VRING_BASE', ring, value: 0 }).reply))
    expect(bases).toEqual([0, 1])
    expect(tell({ request: 'RESET_DEVICE' }).reset).toBe(true)
    expect(tell({ request: 'RESET_DEVICE' }).reset).toBe(false)
    for (const ring of [0, 1]) expect(tell({ request: 'SET_VRING_BASE', ring, value: 0 }).reset).toBeUndefined()
  })

  test('when the VM begins, and no driver has been there: no reset', () => {
    expect(tell({ request: 'RESET_DEVICE' }).reset).toBe(false)
    tell({ request: 'SET_VRING_BASE', ring: 0, value: 0 })
    expect(tell({ request: 'RESET_DEVICE' }).reset).toBe(false)
  })

  test('of halted rings, too', () => {
    start()
    session.halt()
    expect(tell({ request: 'RESET_DEVICE' }).reset).toBe(true)
    expect(session.restart()).toBeUndefined()
    expect(session.running).toBe(false)
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
    expect(platform.unmapped).toEqual(platform.mapped)
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
