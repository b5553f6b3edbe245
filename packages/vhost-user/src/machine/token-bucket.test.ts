import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TokenBucket } from './token-bucket.js'

const packet = fc.integer({ min: 1, max: 70_000 })
const rate = fc.record({ perSecond: fc.integer({ min: 1024, max: 10 ** 9 }), burst: fc.integer({ min: 1, max: 10 ** 9 }) })

describe('a bucket', () => {
  test('holds a burst at first, and never more', () => {
    const bucket = new TokenBucket({ perSecond: 2, burst: 3 }, 0)
    for (let left = 3; left > 0; left--) {
      expect(bucket.has(0)).toBe(true)
      bucket.take(1, 0)
    }
    expect(bucket.has(0)).toBe(false)
    expect(bucket.has(499)).toBe(false)
    expect(bucket.has(500)).toBe(true)
    bucket.take(3, 1_000_000)
    expect(bucket.has(1_000_000)).toBe(false)
  })

  test('what was taken beyond it is waited for, and 10 ms more', () => {
    const bucket = new TokenBucket({ perSecond: 1000, burst: 100 }, 0)
    bucket.take(99, 0)
    expect(bucket.opensAt).toBeLessThanOrEqual(0)
    bucket.take(501, 0)
    expect(bucket.opensAt).toBe(510)
    expect(bucket.has(510)).toBe(true)
  })

  test('a small burst is not waited for longer than it takes to fill', () => {
    const bucket = new TokenBucket({ perSecond: 100_000, burst: 5 }, 0)
    bucket.take(5, 0)
    expect(bucket.opensAt).toBe(0.05)
  })

  test('a raised rate is felt within a second, and a lowered burst at once', () => {
    const bucket = new TokenBucket({ perSecond: 1024, burst: 1024 }, 0)
    bucket.take(1024 * 61, 0)
    expect(bucket.opensAt).toBeGreaterThan(60_000)
    bucket.change({ perSecond: 4096, burst: 4096 }, 0)
    expect(bucket.opensAt).toBe(1010)
    bucket.change({ perSecond: 4096, burst: 4096 }, 100_000)
    expect(bucket.opensAt).toBeLessThanOrEqual(100_000)
    bucket.change({ perSecond: 1, burst: 1 }, 100_000)
    bucket.take(1, 100_000)
    expect(bucket.has(100_999)).toBe(false)
    expect(bucket.has(101_000)).toBe(true)
  })

  test('a sender that is always at it gets the rate: no more than the burst and a packet beyond, and no less than a packet below', () => {
    fc.assert(
      fc.property(rate, fc.array(packet, { minLength: 1, maxLength: 40 }), ({ perSecond, burst }, packets) => {
        const bucket = new TokenBucket({ perSecond, burst }, 5)
        const largest = Math.max(...packets)
        let now = 5
        let moved = 0
        for (const bytes of packets) {
          // Time jumps to where the bucket opens, and never stands still for a closed bucket.
          expect(Number.isFinite(Math.max(now, bucket.opensAt))).toBe(true)
          now = Math.max(now, bucket.opensAt)
          const due = burst + ((now - 5) * perSecond) / 1000
          expect(moved).toBeLessThanOrEqual(due + 1)
          if (now > 5) expect(moved).toBeGreaterThanOrEqual(due - burst - perSecond / 100 - 1)
          bucket.take(bytes, now)
          moved += bytes
          expect(moved).toBeLessThanOrEqual(due + largest + 1)
          if (bucket.opensAt > now) expect(bucket.opensAt - now).toBeLessThanOrEqual((1000 * largest) / perSecond + 10 + 1e-6)
        }
      }),
      { seed: 1, numRuns: 300 },
    )
  })
})
