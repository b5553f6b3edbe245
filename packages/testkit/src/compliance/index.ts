import { checkFunction, checkObject, wrongValue } from '@upcall/foundation/check'
import { connecting } from './connecting.js'
import { ending } from './ending.js'
import { listening } from './listening.js'
import { Scope } from './scope.js'
import { transferring } from './transferring.js'
import type { ComplianceTransport } from './transport.js'

/** One test of a transport. */
export interface ComplianceTest {
  readonly name: string
  /**
   * Rejects if the transport fails the test, and closes everything that it opened.
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

/**
 * The tests that every transport has to pass. They need nothing but `node:assert`: they run under any test runner, and without one. The
 * transport's `features` decide which tests there are.
 */
export function transportCompliance<A>(transport: ComplianceTransport<A>, options: ComplianceOptions = {}): ComplianceTest[] {
  checkObject('transport', transport)
  for (const name of ['listen', 'connect', 'vacant'] as const) checkFunction(`transport.${name}`, transport[name])
  checkObject('transport.features', transport.features)
  checkObject('options', options)
  const { timeoutMs = 10_000 } = options
  if (typeof timeoutMs !== 'number' || !(timeoutMs > 0 && timeoutMs <= LONGEST_TIMER_MS))
    wrongValue('timeoutMs', `a number of milliseconds from 1 to ${LONGEST_TIMER_MS}`, timeoutMs)
  const tests = [...connecting(transport), ...transferring<A>(), ...ending(transport), ...listening(transport)]
  return tests.map(([name, test]) => ({
    name,
    async run(signal) {
      const overtime = new AbortController()
      const timer = setTimeout(
        () => overtime.abort(new Error(`${transport.name}: ${name}: the test takes longer than ${timeoutMs} ms`)),
        timeoutMs,
      )
      const scope = new Scope(transport, signal === undefined ? overtime.signal : AbortSignal.any([signal, overtime.signal]))
      try {
        await scope.until(test(scope))
      } finally {
        clearTimeout(timer)
        await scope.close()
      }
    },
  }))
}
