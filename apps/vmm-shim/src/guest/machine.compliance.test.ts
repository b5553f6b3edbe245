import { DeviceManager } from '@upcall/device-manager'
import { machineCompliance } from '@upcall/testkit/vmm'
import { SimulatedMachine } from '@upcall/vmm/simulated'
import type { Arch } from '@upcall/wire'
import { describe, inject, it } from 'vitest'
import { temporaryDirectory } from '../../../../packages/vmm/testing/rig.js'

const guestEntry = new URL(inject('programs').guest)

async function start(arch: Arch) {
  const directory = temporaryDirectory()
  const machine = new SimulatedMachine({
    ...{ arch, kernel: '6.12', cpus: 1, maxCpus: 4, memory: 2 ** 30, bootMs: 20, hardware: 'plugged', guestEntry },
    directory: directory.path,
  })
  const manager = new DeviceManager<Arch>({
    arch,
    dial: ({ signal }) => machine.connect(signal),
    reconnect: { maxDelayMs: 20 },
  })
  await manager.ready({ timeoutMs: 20_000 })
  await machine.booted()
  return {
    ...{ machine, manager },
    kill: () => machine.kill(),
    async close() {
      await manager.close()
      await machine.stop()
      directory[Symbol.dispose]()
    },
  }
}

const features = { cpus: true, drives: true, pci: true, guest: true, kill: true }

describe.each(['x86_64', 'aarch64'] as const)('a simulated guest in a process of its own, %s', (arch) => {
  const tests = machineCompliance({ name: `simulated, ${arch}`, features, start: () => start(arch) }, { timeoutMs: 30_000 })
  for (const { name, run } of tests) it(name, { timeout: 60_000 }, ({ signal }) => run(signal))
})
