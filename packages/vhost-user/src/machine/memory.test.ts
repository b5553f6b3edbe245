import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Chain } from './chain.js'
import { DeviceError } from './errors.js'
import { GuestMemory, type MappedRegion, WINDOW_OVERLAP, WINDOW_STEP, windowCount, windowLength } from './memory.js'

const STEP = 4096
const OVERLAP = 512

/** A region in small windows, as a large one would be in windows of 2 GiB; byte i of the region is i mod 251. */
function region(guestAddress: number, size: number, userAddress = guestAddress + 0x7000_0000_0000): MappedRegion {
  const bytes = Uint8Array.from({ length: size }, (_, i) => i % 251)
  const windows = Array.from({ length: windowCount(size, STEP) }, (_, i) =>
    bytes.subarray(i * STEP, i * STEP + windowLength(size, i, STEP, OVERLAP)),
  )
  return { guestAddress, userAddress, size, fileOffset: 0, windows }
}

const memoryOf = (...regions: MappedRegion[]): GuestMemory => new GuestMemory(regions, { step: STEP, overlap: OVERLAP })

function readAt(memory: GuestMemory, address: number, length: number): Uint8Array {
  const chain = new Chain()
  chain.begin(0)
  memory.append(address, length, false, chain)
  const bytes = new Uint8Array(length)
  chain.read(bytes, 0, length)
  return bytes
}

describe('GuestMemory', () => {
  test('a range over windows and an adjacent region reads as if it were one', () => {
    const memory = memoryOf(region(0x1_0000, 10_000), region(0x1_0000 + 10_000, 5_000))
    const expected = Uint8Array.from({ length: 15_000 }, (_, i) => (i < 10_000 ? i : i - 10_000) % 251)
    fc.assert(
      fc.property(fc.nat(14_999), fc.nat(15_000), (offset, length) => {
        fc.pre(offset + length <= 15_000)
        expect(readAt(memory, 0x1_0000 + offset, length)).toEqual(expected.subarray(offset, offset + length))
      }),
    )
  })

  test.each([
    ['before the region', 0x0_ffff, 1],
    ['after the region', 0x1_0000 + 10_000, 1],
    ['past the end', 0x1_0000 + 9_999, 2],
    ['all of the address space', 0, 0xffff_ffff],
    ['the top of the 64-bit space', 2 ** 64, 16],
    ['an address that a 64-bit sum would wrap', 2 ** 64 - 8, 64],
  ])('%s is OUT_OF_BOUNDS', (_, address, length) => {
    const memory = memoryOf(region(0x1_0000, 10_000))
    const chain = new Chain()
    chain.begin(0)
    expect(() => memory.append(address, length, true, chain)).toThrow(expect.objectContaining({ code: 'OUT_OF_BOUNDS' }))
    expect(() => memory.locate(address, length)).toThrow(expect.objectContaining({ code: 'OUT_OF_BOUNDS' }))
  })

  test('in a table of many regions, in any order, every address is found in its own, and none in a gap', () => {
    const layout = fc.array(fc.record({ gap: fc.nat(3), size: fc.integer({ min: 1, max: 4 }) }), { minLength: 1, maxLength: 509 })
    fc.assert(
      fc.property(layout, fc.boolean(), fc.array(fc.nat(4000), { minLength: 20, maxLength: 20 }), (spans, turned, addresses) => {
        let end = 0
        const regions = spans.map(({ gap, size }, i) => {
          const guestAddress = end + gap
          end = guestAddress + size
          // In the front end they lie the other way round.
          const userAddress = 10_000 - end
          return { guestAddress, userAddress, size, fileOffset: 0, windows: [new Uint8Array(size).fill(i)] }
        })
        const memory = new GuestMemory(turned ? [...regions].reverse() : regions)
        for (const address of addresses.map((each) => each % (end + 2))) {
          const home = regions.find(({ guestAddress, size }) => address >= guestAddress && address < guestAddress + size)
          if (home === undefined) {
            expect(() => memory.locate(address, 1)).toThrow(expect.objectContaining({ code: 'OUT_OF_BOUNDS' }))
            expect(memory.locateUser(10_000 - address - 1, 1)).toBeUndefined()
            continue
          }
          const offset = address - home.guestAddress
          expect(memory.locate(address, 1)).toEqual({ window: home.windows[0], offset })
          // Byte for byte the mirror image.
          expect(memory.locateUser(10_000 - address - 1, 1)).toEqual({ window: home.windows[0], offset: home.size - 1 - offset })
        }
      }),
    )
  })

  test('a ring part that straddles two windows is found whole', () => {
    const memory = memoryOf(region(0x1_0000, 10_000))
    const located = memory.locateUser(0x7000_0001_0000 + STEP - 100, OVERLAP)!
    expect(located.window.subarray(located.offset, located.offset + OVERLAP)).toEqual(
      readAt(memory, 0x1_0000 + STEP - 100, OVERLAP),
    )
  })

  test('a ring part outside the table is not found', () => {
    const memory = memoryOf(region(0x1_0000, 10_000))
    expect(memory.locateUser(0x1_0000, 16)).toBeUndefined()
    expect(memory.locateUser(0x7000_0001_0000 + 9_990, 16)).toBeUndefined()
  })

  test('windows of the real size overlap by more than the largest ring part, and are views that Node can make', () => {
    expect(WINDOW_OVERLAP).toBeGreaterThanOrEqual(32768 * 16)
    expect(windowLength(2 ** 40, 0)).toBe(WINDOW_STEP + WINDOW_OVERLAP)
    expect(WINDOW_STEP + WINDOW_OVERLAP).toBeLessThan(2 ** 32)
    expect(windowCount(9 * 2 ** 30)).toBe(5)
    expect(windowLength(9 * 2 ** 30, 4)).toBe(2 ** 30)
  })

  test.each<[string, MappedRegion[]]>([
    ['no region', []],
    ['overlap in guest addresses', [region(0, 8192, 0x10_0000), region(4096, 8192, 0x20_0000)]],
    ['overlap in front-end addresses', [region(0, 8192, 0x10_0000), region(0x10_0000, 8192, 0x10_1000)]],
    ['an empty region', [{ ...region(0, 1), size: 0, windows: [] }]],
    ['an end beyond 2^53', [{ ...region(0, 4096), guestAddress: 2 ** 53 }]],
    ['a window too short', [{ ...region(0, 4096), windows: [new Uint8Array(4095)] }]],
  ])('%s is refused', (_, regions) => {
    expect(() => memoryOf(...regions)).toThrow(DeviceError)
  })
})
