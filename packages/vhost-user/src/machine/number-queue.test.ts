import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { NumberQueue } from './number-queue.js'

describe('a queue of numbers', () => {
  test('gives back what it was given, in order, whatever the order of calls', () => {
    const call = fc.oneof(fc.maxSafeNat(), fc.nat(200), fc.constant('shift' as const))
    fc.assert(
      fc.property(fc.array(call, { maxLength: 400 }), (calls) => {
        const queue = new NumberQueue()
        const model: number[] = []
        for (const it of calls) {
          if (it !== 'shift') {
            queue.push(it)
            model.push(it)
          } else if (model.length > 0) {
            expect(queue.shift()).toBe(model.shift())
          }
          expect(queue.length).toBe(model.length)
        }
        while (model.length > 0) expect(queue.shift()).toBe(model.shift())
      }),
    )
  })

  test('has at most two bytes for each small number, and none to speak of when it is empty', () => {
    const queue = new NumberQueue()
    for (let i = 0; i < 100_000; i++) queue.push(3)
    expect(queue.size).toBeLessThanOrEqual(200_000)
    // A queue that is never empty does not grow.
    for (let i = 0; i < 500_000; i++) {
      queue.push(5)
      queue.shift()
    }
    expect(queue.size).toBeLessThanOrEqual(400_000)
    while (queue.length > 0) queue.shift()
    expect(queue.size).toBeLessThan(100)
  })

  test('is empty once it is cleared', () => {
    const queue = new NumberQueue()
    queue.push(2 ** 40)
    queue.push(7)
    queue.clear()
    expect(queue.length).toBe(0)
    queue.push(9)
    expect(queue.shift()).toBe(9)
  })
})
