// The machines of this repository, for the compliance suite.
import { readFileSync } from 'node:fs'
import { DeviceManager } from '@upcall/device-manager'
import { deviceManagerGuest, type SimulatedGuest, simulatedGuest } from '@upcall/device-manager/guest'
import { UpcallServer } from '@upcall/server'
import { duplexPair } from '@upcall/testkit'
import type { ComplianceMachine } from '@upcall/testkit/vmm'
import { type Machine, nextFunction, nextWindow, readBdf, VmError } from '@upcall/vmm'
import type { Arch } from '@upcall/wire'
import { makeRig } from '../../packages/vmm/testing/rig.js'
import { emulated } from './emulated.js'

const MIB = 2 ** 20

/** The test rig of `@upcall/vmm`. */
export function rig(arch: Arch): ComplianceMachine {
  return {
    name: `the test rig, ${arch}`,
    features: { cpus: true, drives: true, pci: true, memory: 1024 * MIB, guest: true, kill: true },
    async start() {
      const { machine, manager, ...rig } = await makeRig({ arch })
      return { machine, manager, kill: () => machine.kill(), close: async () => rig[Symbol.asyncDispose]() }
    },
  }
}

/** `QemuMachine` over a QEMU that is a list of devices, with a simulated guest. */
export function fakeQemu(type: 'q35' | 'pc' | 'microvm'): ComplianceMachine {
  const isMicrovm = type === 'microvm'
  return {
    name: `a ${type} under a fake QEMU`,
    features: {
      ...{ cpus: true, drives: isMicrovm, pci: !isMicrovm, guest: true, kill: true },
      memory: isMicrovm ? undefined : 1024 * MIB,
    },
    start: () => emulated(type),
  }
}

interface ListMachine extends Machine {
  readonly kernel: SimulatedGuest
  readonly cpus: ReadonlySet<number>
  readonly pci: ReadonlyMap<string, { place: { bus: number; devfn: number } }>
  kill(): void
}

/** The machine of the README of `@upcall/vmm`. */
export function readmeMachine(): ComplianceMachine {
  const readme = readFileSync(new URL('../../packages/vmm/README.md', import.meta.url), 'utf8')
  const source = /^class ListMachine \{.*?^\}/ms.exec(readme)?.[0]
  const make = new Function('nextFunction', 'nextWindow', 'readBdf', 'VmError', `return ${source}`)
  const Machine = make(nextFunction, nextWindow, readBdf, VmError) as new (
    boot: (machine: ListMachine) => SimulatedGuest,
  ) => ListMachine
  return {
    name: "the README's machine",
    features: { cpus: true, drives: true, pci: true, guest: true, kill: true },
    async start() {
      const machine = new Machine(({ cpus, pci }) =>
        simulatedGuest({
          ...{ arch: 'x86_64', cpus: cpus.size, maxCpus: 4 },
          pci: [...pci.values()].map(({ place }) => place),
          hardware: {
            hasCpu: (id) => cpus.has(id),
            hasPci: (bus, devfn) => [...pci.values()].some(({ place }) => place.bus === bus && place.devfn === devfn),
          },
        }),
      )
      const servers: UpcallServer[] = []
      const manager = new DeviceManager<Arch>({
        arch: 'x86_64',
        reconnect: { maxDelayMs: 20 },
        dial: async () => {
          if (machine.guest === 'dead') throw Object.assign(new Error('there is no guest'), { code: 'ECONNREFUSED' })
          const [near, far] = duplexPair()
          const server = new UpcallServer({ services: [deviceManagerGuest(machine.kernel)] })
          servers.push(server)
          server.accept(far)
          return near
        },
      })
      const cut = async () => {
        for (const server of servers.splice(0)) await server.close()
      }
      return {
        ...{ machine, manager },
        async kill() {
          machine.kill()
          await cut()
        },
        async close() {
          await manager.close()
          await cut()
        },
      }
    },
  }
}
