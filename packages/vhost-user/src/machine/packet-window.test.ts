import { collectGarbage } from '@upcall/foundation/testing/collect-garbage'
import { seededRandom } from '@upcall/foundation/testing/seeded-random'
import { expect, test } from 'vitest'
import { PacketWindow, packetLimit } from './packet-window.js'

test.each([
  [0, 1],
  [1023, 1],
  [262_144, 256],
  [2 ** 32 - 1, 16_384],
])('a buffer of %i bytes: %i packets', (bytes, packets) => {
  expect(packetLimit(bytes)).toBe(packets)
})

test('packets are forgotten one by one while there are few of them, over the wrap of 32 bits, too', () => {
  const window = new PacketWindow()
  const from = 2 ** 32 - 500
  for (let i = 1; i <= 100; i++) window.add((from + 10 * i) >>> 0)
  expect(window.size).toBe(100)
  for (let i = 1; i <= 100; i++) {
    window.taken((from + 10 * i - 1) >>> 0)
    expect(window.size).toBe(101 - i)
    window.taken((from + 10 * i) >>> 0)
    expect(window.size).toBe(100 - i)
  }
})

test('however many there are, too few are never counted, and none when all have been taken', () => {
  const random = seededRandom(1)
  const window = new PacketWindow()
  const ends: number[] = []
  let sent = 0
  let taken = 0
  for (let i = 0; i < 20_000; i++) {
    for (let n = Math.floor(random() * 6); n > 0; n--) {
      sent += 1 + Math.floor(random() * 300)
      window.add(sent)
      ends.push(sent)
    }
    taken = Math.min(sent, taken + Math.floor(random() * 600))
    window.taken(taken)
    while (ends.length > 0 && ends[0]! <= taken) ends.shift()
    expect(window.size).toBeGreaterThanOrEqual(ends.length)
    if (i % 1_000 === 999) {
      window.taken(sent)
      taken = sent
      ends.length = 0
      expect(window.size).toBe(0)
    }
  }
})

test('a thousand connections with as many packets as there may be do not cost a hundred megabytes', () => {
  collectGarbage(5)
  const before = process.memoryUsage().heapUsed
  const windows = Array.from({ length: 1_000 }, () => new PacketWindow())
  for (const window of windows) for (let i = 1; i <= 16_384; i++) window.add(i)
  expect(windows.every(({ size }) => size === 16_384)).toBe(true)
  collectGarbage(5)
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(20 << 20)
})
