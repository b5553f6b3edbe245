import { wrongValue } from '@upcall/foundation/check'

/** One test of a compliance suite. */
export interface ComplianceTest {
  readonly name: string
  /**
   * Rejects if the subject fails the test, and closes everything that it opened.
   *
   * @param signal - Ends the test early. It ends by itself after `timeoutMs`.
   */
  run(signal?: AbortSignal): Promise<void>
}

export interface ComplianceOptions {
  /** How long one test may take, in milliseconds. Default 10,000. */
  timeoutMs?: number | undefined
}

/** setTimeout fires at once beyond this. */
const LONGEST_TIMER_MS = 0x7fff_ffff

/** @throws RangeError */
export function checkTestTime(timeoutMs = 10_000): number {
  if (typeof timeoutMs !== 'number' || !(timeoutMs > 0 && timeoutMs <= LONGEST_TIMER_MS))
    wrongValue('timeoutMs', `a number of milliseconds from 1 to ${LONGEST_TIMER_MS}`, timeoutMs)
  return timeoutMs
}

/** A test that ends with its time. `test` has to end when its signal aborts. */
export function boundedTest(
  subject: string,
  name: string,
  timeoutMs: number,
  test: (signal: AbortSignal) => Promise<void>,
): ComplianceTest {
  return {
    name,
    async run(signal) {
      const overtime = new AbortController()
      const timer = setTimeout(
        () => overtime.abort(new Error(`${subject}: ${name}: the test takes longer than ${timeoutMs} ms`)),
        timeoutMs,
      )
      try {
        await test(signal === undefined ? overtime.signal : AbortSignal.any([signal, overtime.signal]))
      } finally {
        clearTimeout(timer)
      }
    },
  }
}
