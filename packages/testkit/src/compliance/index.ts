import { checkFunction, checkObject, show } from '../check.js'
import { connecting } from './connecting.js'
import { ending } from './ending.js'
import { listening } from './listening.js'
import { Scope } from './scope.js'
import { transferring } from './transferring.js'
import type { ComplianceTransport } from './transport.js'

/** One test of a transport. `run` rejects if the transport fails it, and closes everything it opened. */
export interface ComplianceTest {
  readonly name: string
  /** @param signal - Ends the test early. It ends by itself after `deadlineMs`. */
  run(signal?: AbortSignal): Promise<void>
}

export interface ComplianceOptions {
  /** How long one test may take, in milliseconds. Default 10,000. */
  deadlineMs?: number | undefined
}

// setTimeout fires at once beyond this.
const LONGEST_TIMER_MS = 0x7fff_ffff

/**
 * What every transport has to do, as tests that need nothing but `node:assert`: they run under any test runner, and without one.
 * Which tests there are depends on what the transport says it can do.
 */
export function transportCompliance<A>(transport: ComplianceTransport<A>, options: ComplianceOptions = {}): ComplianceTest[] {
  checkObject('transport', transport)
  for (const name of ['listen', 'connect', 'vacant'] as const) checkFunction(`transport.${name}`, transport[name])
  checkObject('transport.features', transport.features)
  checkObject('options', options)
  const { deadlineMs = 10_000 } = options
  if (typeof deadlineMs !== 'number' || !(deadlineMs > 0 && deadlineMs <= LONGEST_TIMER_MS))
    throw new RangeError(`deadlineMs: must be a number of milliseconds in 1 … ${LONGEST_TIMER_MS}, got ${show(deadlineMs)}`)
  const tests = [...connecting(transport), ...transferring<A>(), ...ending(transport), ...listening(transport)]
  return tests.map(([name, test]) => ({
    name,
    async run(signal) {
      const overtime = new AbortController()
      const timer = setTimeout(
        () => overtime.abort(new Error(`${transport.name}: ${name}: not through after ${deadlineMs} ms`)),
        deadlineMs,
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
