import { checkFunction, checkObject } from '@upcall/foundation/check'
import { boundedTest, type ComplianceOptions, type ComplianceTest, checkTestTime } from './bounded-test.js'
import { connecting } from './connecting.js'
import { ending } from './ending.js'
import { listening } from './listening.js'
import { Scope } from './scope.js'
import { transferring } from './transferring.js'
import type { ComplianceTransport } from './transport.js'

/**
 * The tests that every transport has to pass. They need nothing but `node:assert`: they run under any test runner, and without one. The
 * transport's `features` decide which tests there are.
 */
export function transportCompliance<A>(transport: ComplianceTransport<A>, options: ComplianceOptions = {}): ComplianceTest[] {
  checkObject('transport', transport)
  for (const name of ['listen', 'connect', 'vacant'] as const) checkFunction(`transport.${name}`, transport[name])
  checkObject('transport.features', transport.features)
  checkObject('options', options)
  const timeoutMs = checkTestTime(options.timeoutMs)
  const tests = [...connecting(transport), ...transferring<A>(), ...ending(transport), ...listening(transport)]
  return tests.map(([name, test]) =>
    boundedTest(transport.name, name, timeoutMs, async (signal) => {
      const scope = new Scope(transport, signal)
      try {
        await scope.until(test(scope))
      } finally {
        await scope.close()
      }
    }),
  )
}
