import { expect, test, vi } from 'vitest'
import { ManualClock } from '../testing/manual-clock.js'
import { Driver, type Machine } from './driver.js'

type Event = { type: 'say'; text: string } | { type: 'sleep'; ms: number } | { type: 'boom' } | { type: 'wake' }

/** Effects are texts; `sleep` sets an alarm. */
class Toy implements Machine<Event, string> {
  wakeAt = Number.POSITIVE_INFINITY
  onStep = (_event: Event) => {}
  step(event: Event, now: number): string[] {
    this.onStep(event)
    if (event.type === 'boom') throw new Error('boom')
    if (event.type === 'sleep') this.wakeAt = now + event.ms
    if (event.type !== 'wake') return event.type === 'say' ? [`${event.text}1`, `${event.text}2`] : []
    if (now < this.wakeAt) return []
    this.wakeAt = Number.POSITIVE_INFINITY
    return [`woke at ${now}`]
  }
}

function rig(perform: (effect: string, driver: Driver<Event, string>) => void = () => {}) {
  const [clock, machine, done] = [new ManualClock(), new Toy(), [] as string[]]
  const driver: Driver<Event, string> = new Driver<Event, string>({
    machine,
    clock,
    perform(effect) {
      done.push(effect)
      perform(effect, driver)
    },
  })
  return { clock, machine, driver, done }
}

test('effects are performed in order, those of an event that one of them causes after the rest', () => {
  const { driver, done } = rig((effect, driver) => {
    if (effect === 'a1') driver.tell({ type: 'say', text: 'b' })
  })
  driver.tell({ type: 'say', text: 'a' })
  expect(done).toEqual(['a1', 'a2', 'b1', 'b2'])
})

test('an event that comes while the machine runs waits for its turn', () => {
  const { driver, machine, done } = rig()
  machine.onStep = (event) => {
    if (event.type === 'say' && event.text === 'a') driver.tell({ type: 'say', text: 'b' })
  }
  driver.tell({ type: 'say', text: 'a' })
  expect(done).toEqual(['a1', 'a2', 'b1', 'b2'])
})

test('one timer wakes the machine when it is due, and moves with it', () => {
  const { driver, clock, done } = rig()
  driver.tell({ type: 'sleep', ms: 50 })
  driver.tell({ type: 'sleep', ms: 20.5 })
  expect(clock.pending).toBe(1)
  clock.advance(20)
  expect(done).toEqual([])
  clock.advance(1)
  expect([done, clock.pending]).toEqual([['woke at 21'], 0])
})

test('what fails is thrown, and the next event is handled', () => {
  const { driver, done } = rig((effect) => {
    if (effect === 'x1') throw new Error('performed badly')
  })
  expect(() => driver.tell({ type: 'boom' })).toThrow('boom')
  expect(() => driver.tell({ type: 'say', text: 'x' })).toThrow('performed badly')
  driver.tell({ type: 'say', text: 'y' })
  expect(done).toEqual(['x1', 'x2', 'y1', 'y2'])
})

test('after stop() there is no timer and no event', () => {
  const { driver, machine, clock } = rig()
  driver.tell({ type: 'sleep', ms: 5 })
  machine.onStep = vi.fn()
  driver.stop()
  driver.tell({ type: 'say', text: 'a' })
  clock.advance(10)
  expect([clock.pending, vi.mocked(machine.onStep).mock.calls.length]).toEqual([0, 0])
})

test('a stop while an effect is performed sets no timer', () => {
  const { driver, machine, clock } = rig((_effect, driver) => driver.stop())
  machine.wakeAt = 5
  driver.tell({ type: 'say', text: 'a' })
  expect(clock.pending).toBe(0)
})

test('a failure takes no effect, event or timer away from others', () => {
  const { driver, machine, clock, done } = rig((effect) => {
    if (effect === 'a1') throw new Error('performed badly')
  })
  driver.tell({ type: 'sleep', ms: 50 })
  machine.onStep = (event) => {
    if (event.type !== 'say' || event.text !== 'a') return
    for (const next of [{ type: 'boom' }, { type: 'sleep', ms: 20 }, { type: 'say', text: 'b' }] as const) driver.tell(next)
  }
  expect(() => driver.tell({ type: 'say', text: 'a' })).toThrow('boom')
  expect(done).toEqual(['a1', 'a2', 'b1', 'b2'])
  clock.advance(20)
  expect(done.at(-1)).toBe('woke at 20')
})
