import { expect, test } from 'vitest'
import { Interrupted } from './errors.js'
import { Exit, ExitStatus, interruptedStatus, type Status, statusOf } from './exit.js'

test('outcomes have the statuses that the help lists', () => {
  expect(['ok', 'guest-error', 'not-sent', 'indeterminate'].map((outcome) => statusOf(outcome as 'ok'))).toEqual([0, 1, 3, 4])
})

test('of any two the first in the order 2, 4, 3, 1, 0 stands, whichever came first', () => {
  const order: Status[] = [2, 4, 3, 1, 0]
  for (const [i, a] of order.entries()) {
    for (const [j, b] of order.entries()) {
      const exit = new ExitStatus()
      exit.add(a)
      exit.add(b)
      expect(exit.status).toBe(order[Math.min(i, j)])
    }
  }
})

test('nothing hides a mistake of our own', () => {
  const exit = new ExitStatus()
  for (const status of [Exit.bug, Exit.invalid, Exit.ok]) exit.add(status)
  expect(exit.status).toBe(70)
})

test('an interruption has the status a shell expects', () => {
  const exit = new ExitStatus()
  expect(interruptedStatus(new Interrupted('SIGINT'), exit)).toBe(130)
  expect(interruptedStatus(new Interrupted('SIGTERM'), exit)).toBe(143)
  exit.servesUntilTold = true
  expect(interruptedStatus(new Interrupted('SIGINT'), exit)).toBe(130)
  expect(interruptedStatus(new Interrupted('SIGTERM'), exit)).toBe(0)
})
