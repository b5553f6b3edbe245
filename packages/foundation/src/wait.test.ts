import { getEventListeners } from 'node:events'
import { describe, expect, test, vi } from 'vitest'
import { ManualClock } from '../testing/manual-clock.js'
import { catchUncaught } from '../testing/uncaught.js'
import { onAbort } from './abort.js'
import { backoffDelay } from './backoff.js'
import { setLongTimer, systemClock } from './clock.js'
import { bounded } from './wait.js'

const rig = ({ timeoutMs = 100, signal }: { timeoutMs?: number; signal?: AbortSignal } = {}) => {
  const clock = new ManualClock()
  const withdrawn = vi.fn()
  let settle: { resolve(value: string): void; reject(error: unknown): void } | undefined
  const promise = bounded<string>(
    { timeoutMs, signal, clock, late: () => new Error('late'), aborted: (cause) => new Error('aborted', { cause }) },
    (resolve, reject) => {
      settle = { resolve, reject }
      return withdrawn
    },
  )
  promise.catch(() => {})
  return { clock, withdrawn, promise, settle }
}

describe('a bounded wait', () => {
  test('ends with what comes in time, and leaves no timer', async () => {
    const { clock, withdrawn, promise, settle } = rig()
    settle!.resolve('it')
    settle!.reject(new Error('too late'))
    await expect(promise).resolves.toBe('it')
    expect([clock.pending, withdrawn.mock.calls.length]).toEqual([0, 1])
  })

  test('ends when its time is up', async () => {
    const { clock, withdrawn, promise, settle } = rig()
    clock.advance(100)
    settle!.resolve('it')
    await expect(promise).rejects.toThrow('late')
    expect(withdrawn).toHaveBeenCalledOnce()
  })

  test('ends with the reason of the signal, and leaves no listener', async () => {
    const abort = new AbortController()
    const { clock, withdrawn, promise } = rig({ signal: abort.signal })
    abort.abort('enough')
    await expect(promise).rejects.toMatchObject({ message: 'aborted', cause: 'enough' })
    expect([clock.pending, withdrawn.mock.calls.length, getEventListeners(abort.signal, 'abort').length]).toEqual([0, 1, 0])
  })

  test('does not begin with a signal that has aborted', async () => {
    const { promise, settle } = rig({ signal: AbortSignal.abort('before') })
    await expect(promise).rejects.toMatchObject({ message: 'aborted', cause: 'before' })
    expect(settle).toBeUndefined()
  })

  test('that settles or fails while it begins is withdrawn all the same', async () => {
    const clock = new ManualClock()
    const bounds = { timeoutMs: 5, clock, late: () => new Error('late'), aborted: () => new Error('aborted') }
    const withdrawn = vi.fn()
    await expect(
      bounded<number>(bounds, (resolve) => {
        resolve(1)
        return withdrawn
      }),
    ).resolves.toBe(1)
    expect(withdrawn).toHaveBeenCalledOnce()
    await expect(
      bounded(bounds, () => {
        throw new Error('at once')
      }),
    ).rejects.toThrow('at once')
    expect(clock.pending).toBe(0)
  })
})

test('a wait whose error cannot be made rejects with what went wrong', async () => {
  const clock = new ManualClock()
  const late = () => {
    throw new Error('a bug')
  }
  const promise = bounded({ timeoutMs: 5, clock, late, aborted: () => new Error('aborted') }, () => undefined)
  clock.advance(5)
  await expect(promise).rejects.toThrow('a bug')
})

describe('abort listeners', () => {
  test('are one for a signal, however many wait for it', () => {
    const abort = new AbortController()
    const fn = vi.fn()
    const stops = Array.from({ length: 20 }, () => onAbort(abort.signal, fn))
    expect(getEventListeners(abort.signal, 'abort')).toHaveLength(1)
    stops[0]!()
    abort.abort('now')
    expect(fn.mock.calls).toEqual(Array(19).fill(['now']))
    for (const stop of stops) stop()
    expect(getEventListeners(abort.signal, 'abort')).toHaveLength(0)
  })

  test('are gone when the last one stops, and come back', () => {
    const abort = new AbortController()
    onAbort(abort.signal, () => {})()
    expect(getEventListeners(abort.signal, 'abort')).toHaveLength(0)
    const fn = vi.fn()
    onAbort(abort.signal, fn)
    abort.abort()
    expect(fn).toHaveBeenCalledOnce()
  })

  test('hear of it although one before them throws, which is an uncaught exception', async () => {
    using uncaught = catchUncaught()
    const abort = new AbortController()
    const heard: unknown[] = []
    onAbort(abort.signal, () => {
      throw new Error('a bug')
    })
    onAbort(abort.signal, (reason) => heard.push(reason))
    abort.abort('now')
    expect(heard).toEqual(['now'])
    expect(await uncaught.next()).toEqual(new Error('a bug'))
  })

  test('need no signal', () => expect(onAbort(undefined, () => {})).not.toThrow())
})

describe('backoff', () => {
  test('doubles up to its greatest delay', () => {
    const pace = { minDelayMs: 10, maxDelayMs: 100 }
    expect([1, 2, 3, 4, 5000].map((attempt) => backoffDelay(pace, attempt))).toEqual([20, 40, 80, 100, 100])
    expect(backoffDelay({ ...pace, random: () => 0 }, 3)).toBe(10)
    expect(backoffDelay({ ...pace, random: () => 0.5 }, 3)).toBe(45)
  })

  test('refuses a random number outside the range', () => {
    expect(() => backoffDelay({ minDelayMs: 1, maxDelayMs: 2, random: () => 2 }, 1)).toThrow(
      new RangeError('random: must return a number from 0 to 1, got 2'),
    )
  })
})

describe('a long timer', () => {
  const after = (ms: number) => {
    const [clock, fn] = [new ManualClock(), vi.fn()]
    return { clock, fn, cancel: setLongTimer(clock, ms, fn) }
  }

  test('asks no clock for a delay that setTimeout does not keep', () => {
    const delays: number[] = []
    const setTimer = (ms: number) => {
      delays.push(ms)
      return () => {}
    }
    setLongTimer({ setTimer }, 2 ** 31 + 1000, () => {})
    setLongTimer({ setTimer }, Number.POSITIVE_INFINITY, () => {})
    expect(delays).toEqual([2 ** 31 - 1])
  })

  test('keeps it all the same, and can be cancelled in any part of it', () => {
    const { clock, fn } = after(2 ** 31 + 1000)
    clock.advance(2 ** 31 - 1)
    clock.advance(1000)
    expect([fn.mock.calls.length, clock.pending]).toEqual([0, 1])
    clock.advance(1)
    expect([fn.mock.calls.length, clock.pending]).toEqual([1, 0])
    const cancelled = after(2 ** 31 + 1000)
    cancelled.clock.advance(2 ** 31 - 1)
    cancelled.cancel()
    expect(cancelled.clock.pending).toBe(0)
  })
})

describe('the clock of the system', () => {
  test('keeps delays that setTimeout does not keep', () => {
    vi.useFakeTimers()
    try {
      const [fn, never, cancelled] = [vi.fn(), vi.fn(), vi.fn()]
      systemClock.setTimer(2 ** 31 + 1000, fn)
      systemClock.setTimer(Number.POSITIVE_INFINITY, never)
      systemClock.setTimer(2 ** 31 + 1000, cancelled)()
      vi.advanceTimersByTime(2 ** 31 + 999)
      expect(fn).not.toHaveBeenCalled()
      vi.advanceTimersByTime(1)
      expect([fn, never, cancelled].map(({ mock }) => mock.calls.length)).toEqual([1, 0, 0])
    } finally {
      vi.useRealTimers()
    }
  })
})
