import { faultsIn } from './faults-in.mjs'

const testkit = faultsIn('testkit', ['testkit', 'tests'])

export default [
  testkit('a fault that does not exist is planned', 'fault-plan.ts', "  checkNames('fault plan', plan, ['read', 'write'])\n", ''),
  testkit('a reply that cannot be encoded is thrown', 'fake-connection.ts', 'async reply(', 'reply('),
  testkit(
    'windows of a machine may overlap',
    'vmm/hardware.ts',
    "ok(!overlaps(window, other), 'a window overlaps a window that is taken')",
    '{}',
  ),
]
