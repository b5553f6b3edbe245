import { expect, test } from 'vitest'
import { Faults } from './fault-plan.js'

test('each cut is looked at once or twice, however many there are', () => {
  const faults = new Faults({ cuts: Array.from({ length: 2000 }, (_, i) => 2 * i) })
  const find = Array.prototype.find
  let looked = 0
  Array.prototype.find = function (this: unknown[], test: (value: unknown, at: number, all: unknown[]) => boolean) {
    return find.call(this, (...args) => {
      looked++
      return test(...args)
    })
  } as typeof find
  try {
    const lengths = [...faults.steps(new Uint8Array(4000))].map((step) => step.do === 'deliver' && step.bytes.length)
    expect(lengths).toEqual(Array(2000).fill(2))
  } finally {
    Array.prototype.find = find
  }
  expect(looked).toBeLessThanOrEqual(4000)
})
