import { expect, test } from 'vitest'
import { Faults } from './fault-plan.js'

test('each cut is looked at a few times, however many there are', () => {
  let looked = 0
  const cuts = new Proxy(
    Array.from({ length: 2000 }, (_, i) => 2 * i),
    {
      get(target, key, receiver) {
        if (typeof key === 'string' && /^\d/.test(key)) looked++
        return Reflect.get(target, key, receiver)
      },
    },
  )
  const faults = new Faults({ cuts })
  const lengths = [...faults.steps(new Uint8Array(4000))].map((step) => step.do === 'deliver' && step.bytes.length)
  expect(lengths).toEqual(Array(2000).fill(2))
  expect(looked).toBeGreaterThanOrEqual(2000)
  expect(looked).toBeLessThanOrEqual(10_000)
})
