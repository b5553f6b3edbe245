import { describe, expect, it } from 'vitest'
import { bounded, systemClock } from './bounded.js'
import { ManualClock } from './fixtures/manual-clock.js'

describe('bounded', () => {
  it('resolves, and leaves neither timer nor listener', async () => {
    const clock = new ManualClock()
    let withdrawn = 0
    const value = await bounded<number>({ deadlineMs: 10, clock, what: 'x' }, (resolve) => {
      resolve(7)
      resolve(8)
      return () => {
        withdrawn++
      }
    })
    expect([value, withdrawn, clock.pending]).toEqual([7, 1, 0])
  })

  it('rejects with what was waited for when the deadline is over, and withdraws the wait', async () => {
    const clock = new ManualClock()
    let withdrawn = 0
    const wait = bounded({ deadlineMs: 10, clock, what: 'the moon', tail: () => ['a line'] }, () => () => {
      withdrawn++
    })
    clock.advance(9)
    expect(withdrawn).toBe(0)
    clock.advance(1)
    await expect(wait).rejects.toMatchObject({ code: 'DEADLINE', summary: 'the moon: nothing after 10 ms', console: ['a line'] })
    expect([withdrawn, clock.pending]).toEqual([1, 0])
  })

  it.each([2 ** 31, Number.POSITIVE_INFINITY])('does not take %d ms for none at all', async (deadlineMs) => {
    const abort = new AbortController()
    const wait = bounded({ deadlineMs, clock: systemClock, what: 'x', signal: abort.signal }, () => {
      // Later than any timer that is set to fire at once.
      setTimeout(() => abort.abort(), 5)
      return undefined
    })
    await expect(wait).rejects.toMatchObject({ code: 'ABORTED' })
  })

  it('rejects on abort with the reason as cause, also when aborted before', async () => {
    const clock = new ManualClock()
    const abort = new AbortController()
    const wait = bounded({ deadlineMs: 10, clock, what: 'x', signal: abort.signal }, () => undefined)
    abort.abort('enough')
    await expect(wait).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
    const started: boolean[] = []
    const late = bounded({ deadlineMs: 10, clock, what: 'x', signal: abort.signal }, () => {
      started.push(true)
      return undefined
    })
    await expect(late).rejects.toMatchObject({ code: 'ABORTED' })
    expect([started, clock.pending]).toEqual([[], 0])
  })

  it.each<[object, string]>([
    [{ deadlineMs: Number.NaN }, 'x: its deadline is NaN; allowed: milliseconds'],
    [{ deadlineMs: Symbol('soon') }, 'x: its deadline is Symbol(soon)'],
    [{ signal: {} }, 'x: signal is {}; allowed: an AbortSignal'],
    [{ signal: null }, 'x: signal is null; allowed: an AbortSignal'],
    [{ signal: new AbortController() }, 'x: signal is '],
    [{ clock: {} }, 'x: clock is {}; allowed: an object with now and setTimer'],
    [{ clock: null }, 'x: clock is null'],
    [{ clock: { now: () => 0 } }, 'x: clock is {}'],
  ])('refuses %o before it waits for anything', async (wrong, message) => {
    const clock = new ManualClock()
    let started = false
    const wait = bounded({ deadlineMs: 10, clock, what: 'x', ...wrong } as never, () => {
      started = true
      return undefined
    })
    await expect(wait).rejects.toMatchObject({ code: 'INVALID_OPTION', message: expect.stringContaining(message) })
    expect([started, clock.pending]).toEqual([false, 0])
  })
})
