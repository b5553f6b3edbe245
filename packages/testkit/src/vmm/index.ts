/**
 * A compliance suite for the machines of `@upcall/vmm`.
 *
 * @packageDocumentation
 */

import { checkFunction, checkObject } from '@upcall/foundation/check'
import { boundedTest, type ComplianceOptions, type ComplianceTest, checkTestTime } from '../compliance/bounded-test.js'
import { guest, succession } from './guest.js'
import { dying, hardware, type Test } from './hardware.js'
import type { ComplianceMachine, RunningMachine } from './machine.js'
import { MachineScope } from './scope.js'

export type { ComplianceOptions, ComplianceTest } from '../compliance/bounded-test.js'
export type { ComplianceMachine, MachineFeatures, RunningMachine } from './machine.js'

/**
 * The tests that every `Machine` has to pass. They need nothing but `node:assert`: they run under any test runner, and without one.
 * The machine's `features` decide which tests there are.
 */
export function machineCompliance(subject: ComplianceMachine, options: ComplianceOptions = {}): ComplianceTest[] {
  checkObject('machine', subject)
  checkFunction('machine.start', subject.start)
  checkObject('machine.features', subject.features)
  checkObject('options', options)
  const timeoutMs = checkTestTime(options.timeoutMs)
  const { guest: hasGuest, kill } = subject.features
  const tests: Test[] = [
    ...hardware(subject),
    ...(kill ? dying(subject) : []),
    ...(hasGuest ? guest(subject) : []),
    ...(hasGuest && kill ? succession(subject) : []),
  ]
  return tests.map(([name, test]) =>
    boundedTest(subject.name, name, timeoutMs, async (signal) => {
      const running: RunningMachine = await subject.start()
      try {
        const scope = new MachineScope(running, subject, signal, timeoutMs)
        await scope.until(test(scope))
      } finally {
        await running.close()
      }
    }),
  )
}
