import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Line } from './line.js'

test('a line does what a list without duplicates does', () => {
  const acts = fc.array(fc.tuple(fc.constantFrom('join', 'leave', 'turn', 'takeAll'), fc.nat(4)))
  fc.assert(
    fc.property(acts, (all) => {
      const line = new Line<number>()
      let list: number[] = []
      for (const [act, member] of all) {
        if (act === 'join') {
          line.join(member)
          if (!list.includes(member)) list.push(member)
        } else if (act === 'leave') {
          line.leave(member)
          list = list.filter((each) => each !== member)
        } else if (act === 'turn') {
          line.turn()
          list = [...list.slice(1), ...list.slice(0, 1)]
        } else {
          expect(line.takeAll()).toEqual(list)
          list = []
        }
        expect([line.first, line.size]).toEqual([list[0], list.length])
      }
      expect(line.takeAll()).toEqual(list)
    }),
  )
})
