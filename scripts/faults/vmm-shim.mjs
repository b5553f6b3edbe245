import { faultsIn } from './faults-in.mjs'

const shim = faultsIn('vmm-shim', ['vmm-shim'], 'apps')

export default [
  shim(
    'a guest is believed whatever it says',
    'qemu/agent.ts',
    'if (result.success) return result.output',
    'return value as AgentReport',
  ),
  shim(
    'a connection is idle although a request is under way',
    'api/server.ts',
    'if (--this.#requests === 0) this.#wait()',
    'this.#wait()',
  ),
]
