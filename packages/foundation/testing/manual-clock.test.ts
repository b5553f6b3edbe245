import { expect, it } from 'vitest'
import { ManualClock, settle } from './manual-clock.js'

it('runs timers in the order in which they are due, then in which they were set', () => {
  const clock = new ManualClock({ start: 100 })
  const ran: [string, number][] = []
  const note = (name: string) => () => ran.push([name, clock.now()])
  clock.setTimer(20, note('late'))
  clock.setTimer(10, note('first'))
  clock.setTimer(10, note('second'))
  const cancel = clock.setTimer(15, note('cancelled'))
  cancel()
  expect(clock.pending).toBe(3)
  expect(clock.nextAt).toBe(110)
  clock.advance(10)
  expect(ran).toEqual([
    ['first', 110],
    ['second', 110],
  ])
  clock.advance(9)
  expect(ran).toHaveLength(2)
  clock.advance(1)
  expect(ran[2]).toEqual(['late', 120])
  expect(clock.pending).toBe(0)
  expect(clock.runNext()).toBe(false)
})

it('runs timers that are set on the way, if they come due on the way', () => {
  const clock = new ManualClock()
  const ran: number[] = []
  const again = () => {
    ran.push(clock.now())
    clock.setTimer(10, again)
  }
  clock.setTimer(10, again)
  clock.advance(35)
  expect(ran).toEqual([10, 20, 30])
  expect(clock.now()).toBe(35)
})

it('fails rather than running timers for ever', () => {
  const clock = new ManualClock({ limit: 50 })
  const again = () => void clock.setTimer(0, again)
  again()
  expect(() => clock.advance(1)).toThrow('livelock')
})

it('drives a promise through its timers', async () => {
  const clock = new ManualClock()
  const wait = (ms: number) => new Promise<void>((resolve) => void clock.setTimer(ms, resolve))
  const work = async () => {
    await wait(1_000)
    await wait(60_000)
    return clock.now()
  }
  expect(await clock.drive(work())).toBe(61_000)
  await expect(clock.drive(wait(5).then(() => Promise.reject(new Error('no'))))).rejects.toThrow('no')
})

it('says so when a promise can never settle, or only never', async () => {
  const clock = new ManualClock({ limit: 50 })
  await expect(clock.drive(new Promise(() => {}))).rejects.toThrow('deadlock')
  const again = () => void clock.setTimer(1, again)
  again()
  await expect(clock.drive(new Promise(() => {}))).rejects.toThrow('livelock')
})

it('says when a timer of a certain length is set', async () => {
  const clock = new ManualClock()
  const armed = clock.armed(500)
  clock.setTimer(300, () => {})
  let told = false
  void armed.then(() => {
    told = true
  })
  await settle()
  expect(told).toBe(false)
  clock.setTimer(500, () => {})
  await armed
})

it('never runs an infinite timer', async () => {
  const clock = new ManualClock()
  clock.setTimer(Number.POSITIVE_INFINITY, () => expect.unreachable())
  expect([clock.pending, clock.nextAt, clock.runNext()]).toEqual([1, undefined, false])
  clock.advance(1e9)
  await expect(clock.drive(new Promise(() => {}))).rejects.toThrow('deadlock')
})

it('refuses what is not a time', () => {
  const clock = new ManualClock()
  expect(() => clock.setTimer(Number.NaN, () => {})).toThrow('ManualClock.setTimer: ms: must be a number, got NaN')
  expect(() => clock.advance(-1)).toThrow('ManualClock.advance: ms: must be a finite number of at least 0, got -1')
  expect(() => clock.advance(Number.POSITIVE_INFINITY)).toThrow('got Infinity')
  expect(() => new ManualClock({ limit: 0 })).toThrow('ManualClock: limit: must be an integer of at least 1, got 0')
})
