import { beforeEach, describe, expect, test } from 'vitest'
import { FakeGuest, GUEST_BASE, MEMORY_SIZE, USER_BASE } from '../../testing/fake-guest.js'
import { Chain } from './chain.js'
import { DESC_INDIRECT, DESC_NEXT, DESC_WRITE, SplitRing } from './vring.js'

let guest: FakeGuest
let chain: Chain
const both = { eventIdx: true, indirect: true }

beforeEach(() => {
  guest = new FakeGuest({ size: 16 })
  chain = new Chain()
})

const ringOf = (features = both, base = 0): SplitRing => new SplitRing(guest.memory, guest.tx.layout, features, base)
const failsWith = (code: string) => expect.objectContaining({ name: 'DeviceError', code })
const buffer = (offset: number, length: number, writable = false) => ({ address: GUEST_BASE + offset, length, writable })

describe('an honest driver', () => {
  test('a chain of several buffers reads in order and comes back in the used ring', () => {
    const ring = ringOf()
    guest.memoryBytes.set([1, 2, 3], 0x5_0000)
    guest.memoryBytes.set([4, 5], 0x6_0000)
    const head = guest.tx.add([buffer(0x5_0000, 3), buffer(0x6_0000, 2)])
    expect(ring.pop(chain)).toBe(true)
    const bytes = new Uint8Array(5)
    chain.read(bytes, 0, 5)
    expect([...bytes]).toEqual([1, 2, 3, 4, 5])
    ring.push(chain.head, 0)
    expect(guest.tx.takeUsed()).toEqual([])
    ring.publish()
    expect(guest.tx.takeUsed()).toEqual([{ head, written: 0 }])
    expect(ring.pop(chain)).toBe(false)
  })

  test('indices wrap at 2^16', () => {
    const ring = ringOf()
    for (let i = 0; i < 70_000; i++) {
      const head = guest.tx.add([buffer(0x5_0000, 1)])
      expect(ring.pop(chain)).toBe(true)
      ring.push(chain.head, 0)
      ring.publish()
      expect(guest.tx.takeUsed()).toEqual([{ head, written: 0 }])
    }
    expect(ring.base).toBe(70_000 & 0xffff)
  })

  test('an indirect table', () => {
    const table = 0x7_0008 // Nothing says that a table is aligned.
    const view = guest.tx.view
    for (const [i, [address, length, flags, next]] of [
      [GUEST_BASE + 0x5_0000, 3, DESC_NEXT, 2],
      [0, 0, 0, 0],
      [GUEST_BASE + 0x6_0000, 4, DESC_WRITE, 0],
    ].entries()) {
      view.setBigUint64(table + 16 * i, BigInt(address!), true)
      view.setUint32(table + 16 * i + 8, length!, true)
      view.setUint16(table + 16 * i + 12, flags!, true)
      view.setUint16(table + 16 * i + 14, next!, true)
    }
    guest.tx.setDescriptor(3, { address: GUEST_BASE + table, length: 48, flags: DESC_INDIRECT, next: 0 })
    guest.tx.offer(3)
    expect(ringOf().pop(chain)).toBe(true)
    expect([chain.head, chain.readable, chain.writable]).toEqual([3, 3, 4])
    chain.write(Uint8Array.of(9, 8, 7, 6), 0, 4)
    expect([...guest.memoryBytes.subarray(0x6_0000, 0x6_0004)]).toEqual([9, 8, 7, 6])
  })

  test('a ring taken over in the middle goes on there', () => {
    const first = ringOf()
    for (let i = 0; i < 3; i++) guest.tx.add([buffer(0x5_0000, 1)])
    for (let i = 0; i < 2; i++) {
      first.pop(chain)
      first.push(chain.head, 0)
    }
    first.publish()
    const second = ringOf(both, first.base)
    expect(second.pending).toBe(1)
    second.pop(chain)
    second.push(chain.head, 0)
    second.publish()
    expect(guest.tx.usedIndex).toBe(3)
  })
})

describe('notification', () => {
  const finishOne = (ring: SplitRing): boolean => {
    guest.tx.add([buffer(0x5_0000, 1)])
    ring.pop(chain)
    ring.push(chain.head, 0)
    guest.tx.takeUsed()
    ring.publish()
    return ring.interruptDue()
  }

  test('with EVENT_IDX the driver is interrupted when its index is passed, and only then', () => {
    const ring = ringOf()
    guest.tx.usedEvent = 2
    expect([finishOne(ring), finishOne(ring), finishOne(ring), finishOne(ring)]).toEqual([false, false, true, false])
  })

  test('asked late, it says no to a driver that has looked meanwhile', () => {
    const ring = ringOf()
    guest.tx.usedEvent = 0
    guest.tx.add([buffer(0x5_0000, 1)])
    ring.pop(chain)
    ring.push(chain.head, 0)
    ring.publish()
    expect(ring.unannounced).toBe(1)
    guest.tx.usedEvent = guest.tx.usedIndex
    expect(ring.interruptDue()).toBe(false)
    expect(ring.unannounced).toBe(0)
  })

  test('without EVENT_IDX a flag decides', () => {
    const ring = ringOf({ eventIdx: false, indirect: false })
    expect(finishOne(ring)).toBe(true)
    guest.tx.view.setUint16(guest.tx.availAt, 1, true)
    expect(finishOne(ring)).toBe(false)
  })

  test('nothing new, no interrupt', () => {
    const ring = ringOf()
    ring.publish()
    expect(ring.interruptDue()).toBe(false)
  })

  test('asking for kicks names the next index, and tells of a chain that came meanwhile', () => {
    const ring = ringOf()
    expect(ring.enableKicks()).toBe(false)
    guest.tx.add([buffer(0x5_0000, 1)])
    expect(ring.enableKicks()).toBe(true)
    ring.pop(chain)
    expect(ring.enableKicks()).toBe(false)
    expect(guest.tx.availEvent).toBe(1)
  })

  test('without EVENT_IDX the flag of the used ring is set and cleared', () => {
    const ring = ringOf({ eventIdx: false, indirect: false })
    ring.disableKicks()
    expect(guest.tx.view.getUint16(guest.tx.usedAt, true)).toBe(1)
    ring.enableKicks()
    expect(guest.tx.view.getUint16(guest.tx.usedAt, true)).toBe(0)
  })
})

describe('a hostile driver', () => {
  const offerOne = (address: number, length: number, flags = 0, next = 0) => {
    guest.tx.setDescriptor(0, { address, length, flags, next })
    guest.tx.offer(0)
  }
  const pop = (features = both) => {
    const before = guest.memoryBytes.slice()
    const ring = ringOf(features)
    try {
      return ring.pop(chain)
    } finally {
      expect(Buffer.compare(guest.memoryBytes, before)).toBe(0)
      expect(ring.base).toBe(0)
    }
  }

  test.each([0, 3, 100, 32769, 65536, 0xffff_ffff])('ring of %i descriptors', (size) => {
    expect(() => new SplitRing(guest.memory, { ...guest.tx.layout, size }, both, 0)).toThrow(failsWith('RING_SIZE'))
  })

  test.each([
    ['desc', 8],
    ['avail', 1],
    ['used', 2],
  ] as const)('%s moved by %i bytes', (part, by) => {
    const layout = { ...guest.tx.layout, [part]: guest.tx.layout[part] + by }
    expect(() => new SplitRing(guest.memory, layout, both, 0)).toThrow(failsWith('RING_ALIGNMENT'))
  })

  test.each(['desc', 'avail', 'used'] as const)('%s at the last bytes of memory, or nowhere', (part) => {
    for (const address of [USER_BASE + MEMORY_SIZE - 16, 0, USER_BASE - 16]) {
      const layout = { ...guest.tx.layout, [part]: address }
      expect(() => new SplitRing(guest.memory, layout, both, 0)).toThrow(failsWith('RING_ADDRESS'))
    }
  })

  test('more available than the ring holds', () => {
    guest.tx.availIndex = 17
    expect(() => pop()).toThrow(failsWith('AVAIL_INDEX'))
  })

  test('an available index that goes back', () => {
    guest.tx.availIndex = 0xffff
    expect(() => pop()).toThrow(failsWith('AVAIL_INDEX'))
  })

  test('a head outside the table', () => {
    guest.tx.offer(16)
    expect(() => pop()).toThrow(failsWith('DESCRIPTOR_INDEX'))
  })

  test('a next outside the table', () => {
    offerOne(GUEST_BASE, 16, DESC_NEXT, 16)
    expect(() => pop()).toThrow(failsWith('DESCRIPTOR_INDEX'))
  })

  test('a loop of one, and of two', () => {
    offerOne(GUEST_BASE, 16, DESC_NEXT, 0)
    expect(() => pop()).toThrow(failsWith('DESCRIPTOR_LOOP'))
    guest.tx.setDescriptor(0, { address: GUEST_BASE, length: 0, flags: DESC_NEXT, next: 1 })
    guest.tx.setDescriptor(1, { address: GUEST_BASE, length: 0, flags: DESC_NEXT, next: 0 })
    expect(() => pop()).toThrow(failsWith('DESCRIPTOR_LOOP'))
  })

  test.each([
    ['past the end', GUEST_BASE + MEMORY_SIZE - 8, 16],
    ['before the start', GUEST_BASE - 8, 16],
    ['all of 32 bits', GUEST_BASE, 0xffff_ffff],
    ['a sum that wraps at 2^64', 0xffff_ffff_ffff_f800, 0x1000],
  ])('a buffer %s', (_, address, length) => {
    offerOne(address, length)
    expect(() => pop()).toThrow(failsWith('OUT_OF_BOUNDS'))
  })

  test('a readable buffer after a writable one', () => {
    guest.tx.setDescriptor(1, { address: GUEST_BASE, length: 8, flags: 0, next: 0 })
    offerOne(GUEST_BASE, 8, DESC_WRITE | DESC_NEXT, 1)
    expect(() => pop()).toThrow(failsWith('DESCRIPTOR_ORDER'))
  })

  describe('indirect tables', () => {
    const TABLE = 0x7_0000
    const entry = (index: number, address: number, length: number, flags: number, next: number) => {
      const at = TABLE + 16 * index
      guest.tx.view.setBigUint64(at, BigInt(address), true)
      guest.tx.view.setUint32(at + 8, length, true)
      guest.tx.view.setUint16(at + 12, flags, true)
      guest.tx.view.setUint16(at + 14, next, true)
    }

    test.each([0, 15, 17, 0xffff_fff0, 16 * 32769])('of %i bytes', (length) => {
      offerOne(GUEST_BASE + TABLE, length, DESC_INDIRECT)
      expect(() => pop()).toThrow(failsWith('INDIRECT'))
    })

    test('not negotiated', () => {
      offerOne(GUEST_BASE + TABLE, 16, DESC_INDIRECT)
      expect(() => pop({ eventIdx: true, indirect: false })).toThrow(failsWith('INDIRECT'))
    })

    test('with a next', () => {
      offerOne(GUEST_BASE + TABLE, 16, DESC_INDIRECT | DESC_NEXT, 1)
      expect(() => pop()).toThrow(failsWith('INDIRECT'))
    })

    test('inside an indirect table', () => {
      entry(0, GUEST_BASE + TABLE, 16, DESC_INDIRECT, 0)
      offerOne(GUEST_BASE + TABLE, 16, DESC_INDIRECT)
      expect(() => pop()).toThrow(failsWith('INDIRECT'))
    })

    test('past the end of memory', () => {
      offerOne(GUEST_BASE + MEMORY_SIZE - 16, 32, DESC_INDIRECT)
      expect(() => pop()).toThrow(failsWith('OUT_OF_BOUNDS'))
    })

    test('that loops', () => {
      entry(0, GUEST_BASE, 1, DESC_NEXT, 1)
      entry(1, GUEST_BASE, 1, DESC_NEXT, 0)
      offerOne(GUEST_BASE + TABLE, 32, DESC_INDIRECT)
      expect(() => pop()).toThrow(failsWith('DESCRIPTOR_LOOP'))
    })

    test('that goes on outside itself', () => {
      entry(0, GUEST_BASE, 1, DESC_NEXT, 2)
      offerOne(GUEST_BASE + TABLE, 32, DESC_INDIRECT)
      expect(() => pop()).toThrow(failsWith('DESCRIPTOR_INDEX'))
    })

    test('longer than any honest one: the walk ends', () => {
      for (let i = 0; i < 4096; i++) entry(i, GUEST_BASE, 0, DESC_NEXT, i + 1)
      offerOne(GUEST_BASE + TABLE, 4096 * 16, DESC_INDIRECT)
      expect(() => pop()).toThrow(failsWith('DESCRIPTOR_LOOP'))
      expect(chain.descriptors).toBeLessThanOrEqual(1024)
    })
  })
})
