import { expect, test } from 'vitest'
import { SkippingClock } from './skipping-clock.js'

test('a skip runs the timers that come due on the way, in order, and no cancelled one', () => {
  const clock = new SkippingClock()
  const ran: string[] = []
  const note = (name: string) => () => void ran.push(name)
  clock.setTimer(2 ** 40, note('far'))
  clock.setTimer(120_000, note('second'))
  clock.setTimer(60_000, note('first'))
  clock.setTimer(90_000, note('cancelled'))()
  const before = clock.now()
  clock.skip(59_000)
  expect(ran).toEqual([])
  clock.skip(70_000)
  expect(ran).toEqual(['first', 'second'])
  expect(clock.now() - before).toBeGreaterThanOrEqual(129_000)
  clock.skip(2 ** 40)
  expect(ran).toEqual(['first', 'second', 'far'])
})

test('a timer that is not skipped runs by itself', async () => {
  const clock = new SkippingClock()
  await new Promise<void>((resolve) => void clock.setTimer(1, resolve))
})

test('a timer that a skipped one cancels does not run', () => {
  const clock = new SkippingClock()
  let ran = false
  clock.setTimer(1_000, () => cancel())
  const cancel = clock.setTimer(2_000, () => {
    ran = true
  })
  clock.skip(5_000)
  expect(ran).toBe(false)
})
