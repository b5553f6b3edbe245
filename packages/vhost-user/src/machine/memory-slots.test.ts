import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { GUEST_BASE, MEMORY_SIZE, USER_BASE } from '../../testing/fake-guest.js'
import { base, REGION, SessionScene, u64 } from '../../testing/session-scene.js'
import { StrictPlatform } from '../../testing/strict-platform.js'
import { P_CONFIGURE_MEM_SLOTS, P_REPLY_ACK } from './features.js'
import type { MemoryRegion } from './memory.js'
import type { Descriptor } from './memory-table.js'
import { MAX_MEMORY_SLOTS } from './message-format.js'

let scene: SessionScene

beforeEach(() => {
  scene = new SessionScene()
  scene.negotiate()
})

/** A region of a page, far from where the fake guest lives. */
const page = (index: number): MemoryRegion => ({
  guestAddress: 0x1_0000_0000 + index * 0x2000,
  userAddress: 0x6000_0000_0000 + index * 0x2000,
  size: 4096,
  fileOffset: 0,
})

const add = (region: MemoryRegion, { descriptors = [{}] as Descriptor[], needReply = true } = {}) =>
  scene.tell({ request: 'ADD_MEM_REG', region }, { descriptors, needReply })
const remove = (region: MemoryRegion, { descriptors = [] as Descriptor[], needReply = true } = {}) =>
  scene.tell({ request: 'REM_MEM_REG', region }, { descriptors, needReply })

/** Regions that are mapped now. */
const mapped = () => scene.platform.mapped.filter((region) => !scene.platform.unmapped.includes(region))

function startRings(): void {
  scene.startRing(0)
  scene.startRing(1)
}

describe('memory slots', () => {
  test('there are 509', () => {
    expect(u64(scene.tell({ request: 'GET_MAX_MEM_SLOTS' }).reply)).toBe(509n)
  })

  test('a guest runs in memory that came region by region', () => {
    expect(u64(add(page(0)).reply)).toBe(0n)
    expect(u64(add(REGION).reply)).toBe(0n)
    startRings()
    expect(scene.turnTx()).toBe(true)
  })

  test('509 regions are taken, and the next is refused, unused', () => {
    for (let i = 0; i < MAX_MEMORY_SLOTS; i++) expect(u64(add(page(i)).reply)).toBe(0n)
    const descriptor = {}
    const { reply, refused } = add(page(MAX_MEMORY_SLOTS), { descriptors: [descriptor] })
    expect(u64(reply)).toBe(1n)
    expect(refused?.message).toMatch(/all 509 slots are in use/)
    expect(scene.platform.closed).toEqual([descriptor])
    expect(mapped()).toHaveLength(MAX_MEMORY_SLOTS)
    expect(u64(remove(page(7)).reply)).toBe(0n)
    expect(u64(add(page(MAX_MEMORY_SLOTS)).reply)).toBe(0n)
  })

  test('a region goes by its addresses and its size; where it lies in its file does not count, and a descriptor is closed', () => {
    add(REGION)
    add(page(0))
    const descriptor = {}
    expect(u64(remove({ ...page(0), fileOffset: 77 }, { descriptors: [descriptor] }).reply)).toBe(0n)
    expect(scene.platform.closed).toEqual([descriptor])
    expect(mapped()).toEqual([expect.objectContaining(REGION)])
  })

  test.each<[string, Partial<MemoryRegion>]>([
    ['guest address', { guestAddress: 0x9000_0000 }],
    ['front-end address', { userAddress: 0x9000_0000 }],
    ['size', { size: 8192 }],
  ])('a region with another %s is not there, and nothing goes', (_, change) => {
    add(page(0))
    const { reply, refused } = remove({ ...page(0), ...change })
    expect(u64(reply)).toBe(1n)
    expect(refused?.message).toMatch(/REM_MEM_REG: there is no region/)
    expect(mapped()).toHaveLength(1)
  })

  test.each<[string, MemoryRegion, number]>([
    ['overlaps another', { ...page(0), guestAddress: page(0).guestAddress + 100, userAddress: 0x100 }, 1],
    ['overlaps another in the front end', { ...page(0), guestAddress: 0x100 }, 1],
    ['is there already', page(0), 1],
    ['is empty', { ...page(1), size: 0 }, 1],
    ['comes without a descriptor', page(1), 0],
    ['comes with two descriptors', page(1), 2],
  ])('a region that %s is refused, its descriptors are closed', (_, region, count) => {
    add(page(0))
    const descriptors = Array.from({ length: count }, () => ({}))
    expect(u64(add(region, { descriptors: [...descriptors] }).reply)).toBe(1n)
    expect(scene.platform.closed).toEqual(descriptors)
    expect(mapped()).toHaveLength(1)
    expect(() => add(region, { descriptors: [...descriptors], needReply: false })).toThrow(
      expect.objectContaining({ name: 'DeviceError' }),
    )
  })

  test('REM_MEM_REG with two descriptors is refused', () => {
    add(page(0))
    expect(u64(remove(page(0), { descriptors: [{}, {}] }).reply)).toBe(1n)
    expect(scene.platform.closed).toHaveLength(2)
    expect(mapped()).toHaveLength(1)
  })

  test.each(['GET_MAX_MEM_SLOTS', 'ADD_MEM_REG', 'REM_MEM_REG'] as const)('%s has to be negotiated', (request) => {
    scene.negotiate(P_REPLY_ACK)
    expect(() => scene.tell({ request, region: page(0) } as never, { descriptors: [] })).toThrow(/was not negotiated/)
  })

  test('SET_MEM_TABLE replaces what came region by region', () => {
    for (let i = 0; i < 20; i++) add(page(i))
    scene.tell({ request: 'SET_MEM_TABLE', regions: [REGION, page(3)] }, { descriptors: [{}, {}] })
    expect(mapped()).toEqual([expect.objectContaining(REGION), expect.objectContaining(page(3))])
    expect(u64(remove(page(3)).reply)).toBe(0n)
  })

  test('a table of which a region cannot be mapped leaves the old one; what had been mapped goes, and no descriptor stays', () => {
    scene.start()
    const before = mapped()
    scene.platform.bytes = ({ guestAddress }) => {
      if (guestAddress !== GUEST_BASE) throw new Error('no')
      return new Uint8Array(MEMORY_SIZE)
    }
    const descriptors = [{ first: 1 }, { second: 2 }, { third: 3 }]
    const regions = [REGION, page(0), page(1)]
    expect(() => scene.tell({ request: 'SET_MEM_TABLE', regions }, { descriptors: [...descriptors] })).toThrow('no')
    expect(mapped()).toEqual(before)
    expect([...scene.platform.used.slice(1), ...scene.platform.closed]).toEqual(descriptors)
    expect(scene.turnTx()).toBe(true)
  })
})

describe('regions under running rings', () => {
  beforeEach(() => {
    add(REGION)
    startRings()
    scene.turnTx()
    scene.platform.notified.length = 0
  })

  test('one more: the rings go on where they are, and the guest is interrupted', () => {
    expect(add(page(0))).not.toHaveProperty('fault')
    expect(scene.platform.notified).toEqual([0, 1])
    expect(scene.session.tx!.base).toBe(1)
    expect(scene.turnTx()).toBe(true)
  })

  test('buffers in a region that came later are found', () => {
    add(page(0))
    scene.guest.tx.add([{ address: page(0).guestAddress, length: 44, writable: false }])
    expect(scene.turnTx()).toBe(true)
  })

  test('one less: it goes after the rings have left, and what lies in it is not found any more', () => {
    add(page(0))
    const { bytes } = scene.platform
    remove(page(0))
    expect(scene.platform.unmapped).toEqual([expect.objectContaining(page(0))])
    scene.platform.bytes = bytes
    scene.guest.tx.add([{ address: page(0).guestAddress, length: 44, writable: false }])
    expect(() => scene.turnTx()).toThrow(expect.objectContaining({ code: 'OUT_OF_BOUNDS' }))
  })

  test('the region that they lie in goes: they are not worked on, no fault is told, and it is gone only after them', () => {
    let livedWhenUnmapped: boolean | undefined
    const unmap = scene.platform.unmapRegion.bind(scene.platform)
    scene.platform.unmapRegion = (region) => {
      livedWhenUnmapped = scene.session.running
      unmap(region)
    }
    const { reply, fault, reset } = remove(REGION)
    expect([u64(reply), fault, reset]).toEqual([0n, undefined, undefined])
    expect(livedWhenUnmapped).toBe(false)
    expect([scene.session.running, scene.session.rx, scene.session.tx]).toEqual([false, undefined, undefined])
    expect(scene.session.displaced?.message).toMatch(/the memory table is empty/)
  })

  test('QEMU takes the region away and adds a larger one: they go on where they were', () => {
    add(page(0))
    remove(REGION)
    expect(scene.session.displaced?.code).toBe('RING_ADDRESS')
    add(page(1))
    expect(scene.session.running).toBe(false)
    expect(add(REGION)).not.toHaveProperty('fault')
    expect(scene.session.displaced).toBeUndefined()
    expect(scene.session.tx!.base).toBe(1)
    expect(scene.turnTx()).toBe(true)
  })

  test('a whole table without them is a fault, also while they wait', () => {
    remove(REGION)
    const { fault } = scene.tell({ request: 'SET_MEM_TABLE', regions: [page(0)] }, { descriptors: [{}] })
    expect(fault?.code).toBe('RING_ADDRESS')
    expect(scene.session.displaced).toBeUndefined()
  })

  test('while they wait they may be stopped, moved, started, halted and reset', () => {
    remove(REGION)
    scene.tell({ request: 'SET_VRING_KICK', ring: 1, descriptor: true }, { descriptors: [{}] })
    const { desc, avail, used } = scene.guest.tx.layout
    scene.tell({ request: 'SET_VRING_ADDR', ring: 1, flags: 0, desc, avail, used, log: 0 })
    expect(base(scene.tell({ request: 'GET_VRING_BASE', ring: 1, value: 0 }).reply)).toBe(1)
    scene.session.halt()
    expect(scene.session.displaced).toBeUndefined()
    expect(scene.tell({ request: 'RESET_DEVICE' }).reset).toBe(true)
  })
})

describe('no order of memory messages leaves anything behind', () => {
  const slot = fc.integer({ min: -1, max: 4 })
  const regionOf = (index: number): MemoryRegion => (index < 0 ? REGION : page(index))
  const step = fc.oneof(
    fc.record({ kind: fc.constantFrom('add' as const, 'remove' as const), slot, odd: fc.integer({ min: 0, max: 9 }) }),
    fc.record({
      kind: fc.constant('table' as const),
      slots: fc.array(slot, { maxLength: 10 }),
      odd: fc.integer({ min: 0, max: 9 }),
    }),
    fc.record({ kind: fc.constantFrom('start' as const, 'stop' as const, 'turn' as const, 'reset' as const) }),
  )

  test('neither a mapping nor a descriptor, whether requests are acknowledged or not', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.boolean(), (steps, needReply) => {
        const platform = new StrictPlatform()
        scene = new SessionScene(platform)
        scene.negotiate(P_CONFIGURE_MEM_SLOTS | P_REPLY_ACK)
        const descriptorsFor = (count: number) => platform.descriptors(count)
        for (const each of steps) {
          platform.fail = 'odd' in each && each.odd === 9
          // One descriptor too many, now and then.
          const more = 'odd' in each && each.odd === 8 ? 1 : 0
          try {
            if (each.kind === 'add') add(regionOf(each.slot), { descriptors: descriptorsFor(1 + more), needReply })
            else if (each.kind === 'remove') remove(regionOf(each.slot), { descriptors: descriptorsFor(2 * more), needReply })
            else if (each.kind === 'table') {
              const regions = each.slots.slice(0, 8).map(regionOf)
              scene.tell({ request: 'SET_MEM_TABLE', regions }, { descriptors: descriptorsFor(regions.length + more), needReply })
            } else if (each.kind === 'start') for (const ring of [0, 1]) scene.startRing(ring)
            else if (each.kind === 'stop') for (const ring of [0, 1]) scene.tell({ request: 'GET_VRING_BASE', ring, value: 0 })
            else if (each.kind === 'reset') scene.tell({ request: 'RESET_DEVICE' })
            else if (scene.guest.tx.freeDescriptors > 0) scene.turnTx()
          } catch (error) {
            expect(error).toSatisfy((thrown: Error) => thrown.name === 'DeviceError' || thrown.message === 'out of memory')
          }
          expect(platform.open.size).toBe(0)
          // A ring is worked on only in memory that is there.
          const places = [...platform.live].some(({ userAddress }) => userAddress === USER_BASE)
          if (scene.session.tx !== undefined || scene.session.rx !== undefined) expect(places).toBe(true)
        }
        scene.session.close()
        expect(platform.live.size).toBe(0)
        expect(platform.open.size).toBe(0)
      }),
      { numRuns: 300 },
    )
  })
})
