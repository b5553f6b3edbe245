import { type Clock, isUpcallError, systemClock, UpcallError } from '@upcall/client'
import type { Arch, CpuRequest } from '@upcall/wire'
import { describe, expect, test } from 'vitest'
import { GuestError } from './guest-error.js'
import { guestErrorOf, isGuestError, isResizeError, ResizeError } from './index.js'
import { CpuResizer, type ResizeOptions } from './resize.js'

type Answer = number | Error

/** A resizer whose guest gives these answers, in turn, then 0; everything that happens is written down. */
function setUp<A extends Arch>(arch: A, answers: Answer[] = [], clock: Clock = systemClock) {
  const log: string[] = []
  const resizer = new CpuResizer(arch, 'guest', clock, async (request: CpuRequest) => {
    log.push(`${request.type} ${'apicIds' in request ? request.apicIds : `count ${request.count}`}`)
    const answer = answers.shift() ?? 0
    if (typeof answer !== 'number') throw answer
    const reply = { type: request.type, result: answer }
    if (answer !== 0) throw new GuestError(request, reply, 'guest')
    return reply
  })
  const callbacks = {
    start: (ids: number[]) => void log.push(`start ${ids}`),
    stop: (ids: number[]) => void log.push(`stop ${ids}`),
  }
  const resize = (target: number, present: ResizeOptions<A>['present'], options: Partial<ResizeOptions<A>> = {}) =>
    resizer.resize(target, { present, max: 8, ...callbacks, ...options })
  return { log, resize }
}

const lost = (outcome: 'indeterminate' | 'not-sent') =>
  new UpcallError({ code: 'DISCONNECTED', outcome, subject: 'guest', what: 'lost' })

describe('success', () => {
  test('grows by the lowest free ids: start, then ask', async () => {
    const { log, resize } = setUp('x86_64')
    expect(await resize(5, [0, 2])).toEqual({ added: [1, 3, 4], removed: [], present: [0, 1, 2, 3, 4] })
    expect(log).toEqual(['start 1,3,4', 'ADD_CPU 1,3,4'])
  })

  test('shrinks by the highest ids: ask, then stop', async () => {
    const { log, resize } = setUp('x86_64')
    expect(await resize(2, [3, 1, 0, 2])).toEqual({ added: [], removed: [3, 2], present: [0, 1] })
    expect(log).toEqual(['DEL_CPU 3,2', 'stop 3,2'])
  })

  test('counts on aarch64, ids for the callbacks all the same', async () => {
    const { log, resize } = setUp('aarch64')
    expect(await resize(4, 1)).toEqual({ added: [1, 2, 3], removed: [], present: 4 })
    expect(await resize(3, 4)).toEqual({ added: [], removed: [3], present: 3 })
    expect(log).toEqual(['start 1,2,3', 'ADD_CPU count 3', 'DEL_CPU count 1', 'stop 3'])
  })

  test('one by one', async () => {
    const { log, resize } = setUp('x86_64')
    await resize(3, [0], { oneByOne: true })
    await resize(1, [0, 1, 2], { oneByOne: true })
    expect(log).toEqual(['start 1', 'ADD_CPU 1', 'start 2', 'ADD_CPU 2', 'DEL_CPU 2', 'stop 2', 'DEL_CPU 1', 'stop 1'])
  })

  test('nothing to do is nothing done', async () => {
    const { log, resize } = setUp('x86_64')
    expect(await resize(2, [0, 1])).toEqual({ added: [], removed: [], present: [0, 1] })
    expect(log).toEqual([])
  })
})

describe('what is certain is rolled back, what is not is told', () => {
  test.each<[string, number, number[], boolean, Answer[], string[], object]>([
    [
      'a refused add of one',
      2,
      [0],
      false,
      [-22],
      ['start 1', 'ADD_CPU 1', 'stop 1'],
      { added: [], unknown: [], present: [0], code: 'GUEST_ERROR', cause: { errno: -22 } },
    ],
    [
      'a refused add of several',
      4,
      [0],
      false,
      [-5],
      ['start 1,2,3', 'ADD_CPU 1,2,3'],
      { added: [], unknown: [1, 2, 3], present: [0], code: 'GUEST_ERROR', cause: { errno: -5 } },
    ],
    [
      'a refused add, one by one',
      4,
      [0],
      true,
      [0, -5],
      ['start 1', 'ADD_CPU 1', 'start 2', 'ADD_CPU 2', 'stop 2'],
      { added: [1], unknown: [], present: [0, 1], code: 'GUEST_ERROR', cause: { errno: -5 } },
    ],
    [
      'an add of a CPU that the guest has online',
      2,
      [0],
      false,
      [1],
      ['start 1', 'ADD_CPU 1'],
      { added: [], unknown: [1], code: 'GUEST_ERROR', cause: { errno: 1, errnoName: '+1' } },
    ],
    [
      'an add that was not sent',
      4,
      [0],
      false,
      [lost('not-sent')],
      ['start 1,2,3', 'ADD_CPU 1,2,3', 'stop 1,2,3'],
      { unknown: [], outcome: 'not-sent' },
    ],
    [
      'an add without an answer',
      4,
      [0],
      false,
      [lost('indeterminate')],
      ['start 1,2,3', 'ADD_CPU 1,2,3'],
      { unknown: [1, 2, 3], outcome: 'indeterminate' },
    ],
    [
      'a refused removal of one',
      1,
      [0, 1],
      false,
      [-16],
      ['DEL_CPU 1'],
      { removed: [], unknown: [], present: [0, 1], code: 'GUEST_ERROR', cause: { errno: -16 } },
    ],
    ['a refused removal of several', 1, [0, 1, 2], false, [-16], ['DEL_CPU 2,1'], { removed: [], unknown: [2, 1], present: [0] }],
    [
      'a removal without an answer',
      2,
      [0, 1, 2],
      false,
      [lost('indeterminate')],
      ['DEL_CPU 2'],
      { removed: [], unknown: [2], present: [0, 1] },
    ],
    [
      'a removal that was not sent',
      2,
      [0, 1, 2],
      false,
      [lost('not-sent')],
      ['DEL_CPU 2'],
      { removed: [], unknown: [], present: [0, 1, 2] },
    ],
  ])('%s', async (_name, target, present, oneByOne, answers, log, error) => {
    const s = setUp('x86_64', answers)
    const rejection = await s.resize(target, present, { oneByOne }).catch((e: unknown) => e)
    expect(isResizeError(rejection)).toBe(true)
    expect(rejection).toMatchObject(error)
    expect(s.log).toEqual(log)
  })
})

describe('callbacks that throw', () => {
  const boom = () => {
    throw new Error('boom')
  }

  test('start: the guest is not asked', async () => {
    const { log, resize } = setUp('x86_64')
    await expect(resize(3, [0], { start: boom })).rejects.toMatchObject({
      code: 'CALLBACK',
      outcome: 'not-sent',
      unknown: [],
      present: [0],
    })
    expect(log).toEqual([])
  })

  test("stop after the guest's yes: the ids are removed", async () => {
    const { resize } = setUp('x86_64')
    await expect(resize(1, [0, 1], { stop: boom })).rejects.toMatchObject({
      code: 'CALLBACK',
      outcome: 'indeterminate',
      removed: [1],
      present: [0],
    })
  })

  test('stop while rolling back: the ids are unknown, both errors are there', async () => {
    const { resize } = setUp('x86_64', [-22])
    const error = await resize(2, [0], { stop: boom }).catch((e: unknown) => e)
    expect(error).toMatchObject({
      name: 'ResizeError',
      code: 'CALLBACK',
      outcome: 'guest-error',
      unknown: [1],
      cause: { name: 'GuestError', errno: -22 },
      errors: [{ name: 'GuestError' }, { message: 'boom' }],
      message:
        'cpu.resize 2: the guest refused: the id is in use or has no vCPU (EINVAL); going back failed too: boom. Look at the guest: it may have CPU 1 or not.',
    })
  })
})

describe('a resize error', () => {
  test('wraps what ended the resize, and is not that', async () => {
    const { resize } = setUp('x86_64', [-22])
    const error = await resize(2, [0]).catch((e: unknown) => e)
    expect([isResizeError(error), isUpcallError(error), isGuestError(error)]).toEqual([true, true, false])
    expect(error).toMatchObject({
      name: 'ResizeError',
      op: 'cpu.resize',
      subject: '2',
      what: 'the guest refused: the id is in use or has no vCPU (EINVAL)',
      next: 'Start the vCPU of a free id before the add.',
    })
    expect(guestErrorOf(error)).toMatchObject({ errno: -22, operation: { op: 'cpu.add', apicIds: [1] } })
  })

  test('names the guest unless it has the default name', async () => {
    const fields = { code: 'CLOSED', outcome: 'not-sent', target: 2, added: [], removed: [], present: [0], unknown: [] } as const
    const error = (remote: string) =>
      new ResizeError<'x86_64'>({ ...fields, added: [], removed: [], unknown: [], remote, errors: [lost('not-sent')] }).message
    expect(error('guest')).toBe('cpu.resize 2: lost')
    expect(error('vm7')).toBe('cpu.resize 2 vm7: lost')
  })

  test('is ABORTED with the reason when start() ends because of the abort', async () => {
    const { log, resize } = setUp('x86_64')
    const controller = new AbortController()
    const start = (_ids: number[], { signal }: { signal: AbortSignal }) => {
      controller.abort('enough')
      return Promise.reject(signal.reason)
    }
    const aborted = { name: 'ResizeError', code: 'ABORTED', outcome: 'not-sent', cause: 'enough', unknown: [] }
    await expect(resize(2, [0], { start, signal: controller.signal })).rejects.toMatchObject(aborted)
    expect(log).toEqual([])
  })
})

describe('limits', () => {
  test.each<[string, number, unknown, number, string]>([
    ['target 0', 0, [0], 8, 'target: must be an integer from 1 to 8 (max), got 0'],
    ['target above max', 9, [0], 8, 'target: must be an integer from 1 to 8'],
    ['max above the ids there are', 2, [0], 256, 'max: must be an integer from 1 to 255'],
    ['no boot CPU', 2, [1], 8, 'present: must have CPU 0'],
    ['an id twice', 2, [0, 1, 1], 8, 'present[2]: CPU 1 is named twice'],
    [
      'a hole among the ids',
      2,
      Object.assign(new Array(3), { 0: 0, 2: 2 }),
      8,
      'present[1]: must be an integer from 0 to 254, got undefined',
    ],
    ['a count on x86_64', 2, 1, 8, 'present: must be the array'],
    ['a removal that would crash a 6.1 guest', 2, [0, 2, 3], 8, 'CPU 3 is above a hole'],
  ])('%s is refused and nothing happens', async (_name, target, present, max, message) => {
    const { log, resize } = setUp('x86_64')
    await expect(resize(target, present as number[], { max })).rejects.toThrow(
      expect.objectContaining({ name: 'WireError', message: expect.stringContaining(message) }),
    )
    expect(log).toEqual([])
  })

  test.each([0, 256, 2 ** 40, 1.5, Number.NaN, '2', [0]])('%j vCPUs are not present on aarch64', async (present) => {
    const { log, resize } = setUp('aarch64')
    await expect(resize(2, present as number)).rejects.toThrow(
      expect.objectContaining({
        name: 'WireError',
        message: expect.stringContaining('present: must be a number of vCPUs from 1 to 255'),
      }),
    )
    expect(log).toEqual([])
  })

  test('a concurrent resize is refused and does not disturb the first; the next may come after it', async () => {
    const { resize } = setUp('x86_64')
    const first = resize(3, [0])
    await expect(resize(2, [0])).rejects.toMatchObject({ code: 'BUSY', outcome: 'not-sent' })
    await first
    await expect(resize(4, [0, 1, 2])).resolves.toMatchObject({ added: [3] })
  })

  test('when the time is up, the guest is not asked any more', async () => {
    let timeIsUp!: () => void
    const clock: Clock = {
      now: () => 0,
      setTimer(_ms, fn) {
        timeIsUp = fn
        return () => {}
      },
    }
    const { log, resize } = setUp('x86_64', [], clock)
    const start = (_ids: number[], { signal }: { signal: AbortSignal }) =>
      new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve())
        timeIsUp()
      })
    await expect(resize(2, [0], { start, timeoutMs: 1 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      outcome: 'not-sent',
      unknown: [],
    })
    expect(log).toEqual(['stop 1'])
  })

  test.each([0, -1, Number.NaN, '5s'])('a time of %j is refused and nothing happens', async (timeoutMs) => {
    const { log, resize } = setUp('x86_64')
    await expect(resize(2, [0], { timeoutMs: timeoutMs as number })).rejects.toThrow(
      new RangeError(
        `timeoutMs: must be a number of milliseconds above 0, got ${typeof timeoutMs === 'string' ? JSON.stringify(timeoutMs) : timeoutMs}`,
      ),
    )
    expect(log).toEqual([])
  })

  test.each([Number.POSITIVE_INFINITY, 2 ** 31])(
    'a time of %d ms asks for no timer that would fire at once',
    async (timeoutMs) => {
      const timers: number[] = []
      const setTimer = (ms: number) => {
        timers.push(ms)
        return () => {}
      }
      const { resize } = setUp('x86_64', [], { now: () => 0, setTimer })
      await expect(resize(2, [0], { timeoutMs })).resolves.toMatchObject({ added: [1] })
      expect(timers.filter((ms) => ms > 2 ** 31 - 1)).toEqual([])
    },
  )

  test('aborted before the call, or between two batches, nothing more is started', async () => {
    const { log, resize } = setUp('x86_64')
    const aborted = { code: 'ABORTED', outcome: 'not-sent', cause: 'enough', unknown: [] }
    await expect(resize(2, [0], { signal: AbortSignal.abort('enough') })).rejects.toMatchObject({ ...aborted, added: [] })
    expect(log).toEqual([])

    const controller = new AbortController()
    const start = (ids: number[]) => {
      log.push(`start ${ids}`)
      if (ids.includes(2)) controller.abort('enough')
    }
    await expect(resize(4, [0], { start, signal: controller.signal, oneByOne: true })).rejects.toMatchObject({
      ...aborted,
      added: [1],
      present: [0, 1],
    })
    expect(log).toEqual(['start 1', 'ADD_CPU 1', 'start 2', 'stop 2'])
  })

  test('aborted before the call, nothing is removed', async () => {
    const { log, resize } = setUp('x86_64')
    await expect(resize(1, [0, 1], { signal: AbortSignal.abort('enough') })).rejects.toMatchObject({ code: 'ABORTED' })
    expect(log).toEqual([])
  })
})
