import { expect, test } from 'vitest'
import { TicketQueue } from './queue.js'
import type { Ticket } from './state.js'

const ticket = (id: number, deadline = Number.POSITIVE_INFINITY) => ({ id, deadline }) as Ticket
const ids = (tickets: readonly (Ticket | undefined)[]) => tickets.map((each) => each?.id)

test('first in, first out; what is put back is next, what is removed does not come', () => {
  const queue = new TicketQueue()
  for (const id of [1, 2, 3, 4]) queue.push(ticket(id))
  const first = queue.shift()!
  expect(first.id).toBe(1)
  queue.unshift(first)
  expect([queue.remove(3)?.id, queue.remove(3), queue.length, queue.first?.id]).toEqual([3, undefined, 3, 1])
  expect(ids([queue.shift(), queue.shift(), queue.shift(), queue.shift()])).toEqual([1, 2, 4, undefined])
})

test('the next deadline is that of a waiting ticket; expired tickets come in their order', () => {
  const queue = new TicketQueue()
  for (const [id, deadline] of [
    [1, 50],
    [2, 20],
    [3, undefined],
    [4, 30],
    [5, 10],
  ] as const)
    queue.push(ticket(id, deadline))
  queue.remove(5)
  expect(queue.nextDeadline).toBe(20)
  expect(ids(queue.takeExpired(19))).toEqual([])
  expect(ids(queue.takeExpired(50))).toEqual([1, 2, 4])
  expect([queue.nextDeadline, queue.length]).toEqual([Number.POSITIVE_INFINITY, 1])
  queue.push(ticket(6, 60))
  expect(ids(queue.takeAll())).toEqual([3, 6])
  expect([queue.nextDeadline, queue.length, queue.first]).toEqual([Number.POSITIVE_INFINITY, 0, undefined])
})

test('behaves as an array does, whatever is done to it', () => {
  let state = 1
  const random = (n: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff
    return (state >> 8) % n
  }
  const queue = new TicketQueue()
  let model: Ticket[] = []
  for (let id = 1, taken: Ticket | undefined; id <= 5_000; id++) {
    const next = ticket(id, random(3) === 0 ? Number.POSITIVE_INFINITY : id + random(100))
    switch (random(8)) {
      case 0:
        taken = queue.shift()
        expect(taken).toBe(model.shift())
        break
      case 1:
        if (taken !== undefined) {
          queue.unshift(taken)
          model.unshift(taken)
        }
        taken = undefined
        break
      case 2: {
        const gone = model[random(model.length + 1)]?.id ?? -1
        expect(queue.remove(gone)).toBe(model.find((each) => each.id === gone))
        model = model.filter((each) => each.id !== gone)
        break
      }
      case 3:
        expect(queue.takeExpired(id)).toEqual(model.filter(({ deadline }) => deadline <= id))
        model = model.filter(({ deadline }) => deadline > id)
        break
      default:
        queue.push(next)
        model.push(next)
    }
    expect([queue.length, queue.first]).toEqual([model.length, model[0]])
    expect(queue.entries).toBeLessThanOrEqual(2 * queue.length + 17)
    expect(queue.nextDeadline).toBe(Math.min(Number.POSITIVE_INFINITY, ...model.map(({ deadline }) => deadline)))
  }
})

test('a deadline is looked at as often as the logarithm says, and those that have gone are forgotten', () => {
  let looks = 0
  const queue = new TicketQueue()
  const counted = (id: number) =>
    ({
      id,
      get deadline() {
        looks++
        return 1_000_000 - id
      },
    }) as Ticket
  const count = 4_096
  for (let id = 0; id < count; id++) {
    queue.push(counted(id))
    expect(queue.nextDeadline).toBe(1_000_000 - id)
  }
  for (let id = 0; id < count; id++) {
    queue.shift()
    queue.push(counted(count + id))
    expect(queue.nextDeadline).toBe(1_000_000 - count - id)
  }
  expect(looks).toBeLessThan(2 * count * 50)
  expect(queue.takeExpired(1_000_000)).toHaveLength(count)
})

test('a ticket that waits for ever does not keep those that have gone', () => {
  const queue = new TicketQueue()
  queue.push(ticket(0))
  for (let id = 1; id <= 10_000; id++) {
    queue.push(ticket(id, id))
    expect(queue.takeExpired(id)).toHaveLength(1)
  }
  expect([queue.length, queue.entries <= 20]).toEqual([1, true])
})

test('a ticket that is taken and put back again and again has one deadline', () => {
  const queue = new TicketQueue()
  queue.push(ticket(1, 5))
  for (let i = 0; i < 1_000; i++) queue.unshift(queue.shift()!)
  expect(queue.entries).toBeLessThanOrEqual(20)
  expect(ids(queue.takeExpired(5))).toEqual([1])
})
