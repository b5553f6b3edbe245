import { expect, it } from 'vitest'
import { Vm, type VmOptions } from './vm.js'

it.each([
  [{ cpus: 0 }, 'cpus: must be an integer from 1 to 4, got 0'],
  [{ cpus: 5 }, 'cpus: must be an integer from 1 to 4, got 5'],
  [{ cpus: 2 ** 32 }, 'cpus: must be an integer from 1 to 4, got 4294967296'],
  [{ maxCpus: 256 }, 'maxCpus: must be an integer from 1 to 255, got 256'],
  [{ readyTimeoutMs: -1 }, 'readyTimeoutMs: must be'],
  [{ reconcileTimeoutMs: Number.NaN }, 'reconcileTimeoutMs: must be'],
])('a VM of %j is refused', (wrong, message) => {
  const options = { machine: {}, manager: { arch: 'x86_64' }, cpus: 1, maxCpus: 4, ...wrong } as VmOptions
  expect(() => new Vm(options)).toThrow(message)
})
