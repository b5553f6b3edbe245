import { faultsIn } from './faults-in.mjs'

const shim = faultsIn('vmm-shim', ['vmm-shim'], 'apps')

export default [
  shim(
    'a guest is believed whatever it says',
    'qemu/agent.ts',
    'if (result.success) return result.output',
    'return value as AgentReport',
  ),
  shim('a request may trickle in for ever', 'api/app.ts', 'requestTimeout: requestTimeoutMs,', 'requestTimeout: 0,'),
  shim('what is not UTF-8 is replaced', 'api/app.ts', 'fatal: true', 'fatal: false'),
  shim('an answer leaves out why a guest is given up', 'api/fault.ts', "error.code !== 'ABORTED'", 'true'),
  shim('an early request finds no VM', 'api/app.ts', 'vm = await served', 'void served.then((each) => (vm = each))'),
  shim('the first error of a dial is final', 'shim.ts', 'retryable: true', 'retryable: false'),
]
