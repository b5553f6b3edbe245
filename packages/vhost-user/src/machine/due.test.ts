import { expect, test } from 'vitest'
import { ASKING_FOR_CREDIT, DueSet, HANDSHAKE, WAITING_FOR_CREDIT, WITH_CREDIT, WITHOUT_BYTES } from './due.js'
import { Op } from './packet.js'

const ALL = [Op.RST, Op.REQUEST, Op.RESPONSE, Op.RW, Op.CREDIT_REQUEST, Op.SHUTDOWN, Op.CREDIT_UPDATE]

/** Everything that is due, in the order in which it goes. */
function said(allowed: number, due: readonly number[] = ALL): number[] {
  const set = new DueSet()
  for (const op of due) set.add(op)
  const order: number[] = []
  for (let op = set.first(allowed); op !== Op.INVALID; op = set.first(allowed)) {
    order.push(op)
    set.delete(op)
  }
  return order
}

test.each([
  ['before it is open, and once it is closed', HANDSHAKE, [Op.RST, Op.REQUEST, Op.RESPONSE]],
  ['without bytes', WITHOUT_BYTES, [Op.RST, Op.REQUEST, Op.RESPONSE, Op.SHUTDOWN, Op.CREDIT_UPDATE]],
  ['with bytes and credit', WITH_CREDIT, [Op.RST, Op.REQUEST, Op.RESPONSE, Op.RW]],
  ['with bytes, to ask for credit', ASKING_FOR_CREDIT, [Op.RST, Op.REQUEST, Op.RESPONSE, Op.CREDIT_REQUEST]],
  ['with bytes, having asked', WAITING_FOR_CREDIT, [Op.RST, Op.REQUEST, Op.RESPONSE, Op.CREDIT_UPDATE]],
])('what a connection says, %s', (_, allowed, expected) => {
  expect(said(allowed)).toEqual(expected)
  expect(said(allowed, [...ALL, ...ALL].reverse())).toEqual(expected)
})

test('cleared, nothing is due', () => {
  const set = new DueSet()
  set.add(Op.RST)
  set.clear()
  expect(set.first(HANDSHAKE)).toBe(Op.INVALID)
})
