import { describe, expect, test } from 'vitest'
import { type Choose, everyOrder, type Play, play } from '../../testing/interleaving.js'

// Either side stores an index of its own and then looks at the other's; unless each sees the other's store or is seen, both wait for
// ever. Here are all orders of these accesses, with the product's own ring and device at one end.

const NOTHING = { toGuest: 0, toHost: 0, reaps: false, late: false, from: 0 }
const LIMIT = 200_000

/** Tries orders until there are no more; says how many left both sides waiting, and how many looks at the rings the worst took to end it. */
function tried(scene: Partial<Play>, orders: (run: (choose: Choose) => void) => number) {
  let [stalled, looks] = [0, 0]
  const count = orders((choose) => {
    const outcome = play({ ...NOTHING, ...scene }, choose)
    if (outcome.stalled) stalled++
    looks = Math.max(looks, outcome.looks)
  })
  return { orders: count, stalled, looks }
}

const everyOrderOf = (scene: Partial<Play>) => tried(scene, (run) => everyOrder(run, LIMIT))

/** So many orders by chance, the same ones each time. */
const someOrdersOf = (count: number, scene: Partial<Play>) =>
  tried(scene, (run) => {
    let x = 1
    const choose = (among: number) => {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0
      return Math.floor((x / 2 ** 32) * among)
    }
    for (let i = 0; i < count; i++) run(choose)
    return count
  })

describe('a guest whose stores are seen in time', { timeout: 120_000 }, () => {
  test.each<[string, number, Partial<Play>]>([
    ['two packets for it', 1_548, { toGuest: 2 }],
    ['the same, indexes wrapping', 1_548, { toGuest: 2, from: 65_535 }],
    ['three packets from it', 1_492, { toHost: 3 }],
    ['two from it, and it waits for its buffers', 9_025, { toHost: 2, reaps: true }],
    ['one each way', 10_635, { toGuest: 1, toHost: 1 }],
  ])('never waits for a device that waits for it: %s', (_scene, orders, scene) => {
    expect(everyOrderOf(scene)).toEqual({ orders, stalled: 0, looks: 0 })
  })

  test('nor does it with many packets both ways', () => {
    const scene = { toGuest: 6, toHost: 6, reaps: true, from: 65_533 }
    expect(someOrdersOf(4_000, scene)).toEqual({ orders: 4_000, stalled: 0, looks: 0 })
  })
})

describe('a guest whose stores are seen late', { timeout: 120_000 }, () => {
  test.each<[string, Partial<Play>]>([
    ['an interrupt is lost', { toGuest: 2 }],
    ['a kick is lost', { toHost: 2 }],
    ['a put-off interrupt is lost', { toHost: 1, reaps: true }],
  ])('may wait for ever, and a look at the rings ends that: %s', (_scene, scene) => {
    const { stalled, looks } = everyOrderOf({ ...scene, late: true })
    expect(stalled).toBeGreaterThan(0)
    expect(looks).toBe(1)
  })

  test('with many packets both ways, too', () => {
    const { stalled, looks } = someOrdersOf(4_000, { toGuest: 6, toHost: 6, reaps: true, from: 65_533, late: true })
    expect(stalled).toBeGreaterThan(0)
    expect(looks).toBeLessThanOrEqual(2)
  })
})
