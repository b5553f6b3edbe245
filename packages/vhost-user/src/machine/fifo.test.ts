import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Fifo } from './fifo.js'

test('a list does what an array does, whatever the order of calls', () => {
  const call = fc.oneof(
    { weight: 4, arbitrary: fc.constant('push' as const) },
    { weight: 4, arbitrary: fc.constant('shift' as const) },
    fc.constantFrom('pop' as const, 'delete' as const),
  )
  fc.assert(
    fc.property(fc.array(call, { maxLength: 600, size: 'max' }), fc.nat(300), (calls, begun) => {
      const list = new Fifo<{ n: number }>()
      const model: { n: number }[] = []
      let n = 0
      const push = () => {
        const item = { n: n++ }
        list.push(item)
        model.push(item)
      }
      for (let i = 0; i < begun; i++) push()
      for (const name of calls) {
        if (name === 'push') push()
        else if (name === 'delete') {
          const item = model[model.length >> 1] ?? { n: -1 }
          expect(list.delete(item)).toBe(model.includes(item))
          if (model.includes(item)) model.splice(model.indexOf(item), 1)
        } else if (model.length > 0) {
          list[name]()
          model[name]()
        }
        expect([list.size, list.first, list.last, list.at(1)]).toEqual([model.length, model[0], model.at(-1), model[1]])
      }
      expect([...list]).toEqual(model)
    }),
    { numRuns: 50 },
  )
})
