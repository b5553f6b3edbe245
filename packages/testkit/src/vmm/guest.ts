import { deepStrictEqual, strictEqual } from 'node:assert/strict'
import { Vm, type VmView } from '@upcall/vmm'
import { rejectsWith, type Test } from './hardware.js'
import type { ComplianceMachine } from './machine.js'
import type { MachineScope } from './scope.js'

const CLEAN = { restarted: false, settled: [], differences: [] }

/** What a `Vm` makes of the machine and its guest: an upcall that follows a change finds it. */
export function guest({ features }: ComplianceMachine): Test[] {
  const tests: Test[] = []
  if (features.cpus)
    tests.push([
      'the guest brings online what was started, and lets go of what is to be stopped',
      async (scope) => {
        const vm = await scope.vm()
        deepStrictEqual(await scope.until(vm.resize(3)), { added: [1, 2], removed: [], present: [0, 1, 2] })
        expectSame(await scope.until(vm.view()))
        deepStrictEqual(await scope.until(vm.resize(1)), { added: [], removed: [2, 1], present: [0] })
        expectSame(await scope.until(vm.view()))
        await scope.until(vm.resize(2))
        await scope.until(vm.resize(1))
      },
    ])
  if (features.drives)
    tests.push([
      'the guest finds a drive that was attached, and lets go of it',
      async (scope) => {
        const vm = await scope.vm()
        await scope.until(vm.addDrive('vdb', scope.disk))
        expectSame(await scope.until(vm.view()))
        await scope.until(vm.removeDrive('vdb'))
        expectSame(await scope.until(vm.view()))
      },
    ])
  if (features.pci)
    tests.push([
      'the guest finds a PCI device that was plugged in, and lets go of it',
      async (scope) => {
        const vm = await scope.vm()
        const { place } = await scope.until(vm.addPci('net1'))
        expectSame(await scope.until(vm.view()))
        await rejectsWith('CONFLICT', scope.until(vm.addPci('net1')))
        await scope.until(vm.removePci('net1'))
        const view = await scope.until(vm.view())
        expectSame({ ...view, guest: withoutSpares(view) })
        strictEqual(place.bus >= 0, true)
      },
    ])
  tests.push([
    'another controller takes the VM up, and finds it as it was left',
    async (scope) => {
      const vm = await fill(scope, features)
      const other = Vm.restore(JSON.parse(JSON.stringify(vm.snapshot())), scope.options)
      const { restarted, differences } = await scope.until(other.reconcile())
      deepStrictEqual({ restarted, differences }, { restarted: false, differences: [] })
      deepStrictEqual((await scope.until(other.view())).believed, (await scope.until(vm.view())).believed)
      await empty(scope, other, features)
      deepStrictEqual(await scope.until(other.reconcile()), CLEAN)
    },
  ])
  return tests
}

/** What a reconcile makes of a guest that died. */
export function succession({ features }: ComplianceMachine): Test[] {
  return [
    [
      'a reconcile boots another guest, which has all that the last one had',
      async (scope) => {
        const vm = await fill(scope, features)
        const before = await scope.until(vm.view())
        await scope.until(scope.kill())
        await scope.eventually(() => vm.state === 'dead', 'the VM is dead')
        await rejectsWith('NOT_READY', scope.until(vm.resize(1)))
        const { restarted, differences } = await scope.until(vm.reconcile())
        deepStrictEqual({ restarted, differences }, { restarted: true, differences: [] })
        const after = await scope.until(vm.view())
        // The next guest is not booted with spares.
        const { spares } = after.believed
        deepStrictEqual(after.believed, { ...before.believed, spares })
        expectSame(after)
        await empty(scope, vm, features)
      },
    ],
  ]
}

type Features = ComplianceMachine['features']

/** One of each kind of thing. */
async function fill(scope: MachineScope, { cpus, drives, pci }: Features): Promise<Vm> {
  const vm = await scope.vm()
  if (cpus) await scope.until(vm.resize(2))
  if (drives) await scope.until(vm.addDrive('vdb', scope.disk))
  if (pci) await scope.until(vm.addPci('net1'))
  return vm
}

async function empty(scope: MachineScope, vm: Vm, { cpus, drives, pci }: Features): Promise<void> {
  if (pci) await scope.until(vm.removePci('net1'))
  if (drives) await scope.until(vm.removeDrive('vdb'))
  if (cpus) await scope.until(vm.resize(1))
}

/** The guest has what the VMM believes; a guest that does not say what it has is believed. */
function expectSame({ believed, guest: says }: VmView): void {
  if (says === undefined) return
  deepStrictEqual(says.cpus.online, believed.cpus.present)
  deepStrictEqual(sorted(says.mmio), sorted(believed.drives.map(({ window }) => window)))
  deepStrictEqual(sorted(says.pci), sorted(believed.pci.map(({ place }) => place)))
}

/** A guest may still see what it has let go of and not ejected. */
function withoutSpares({ believed, guest: says }: VmView): VmView['guest'] {
  if (says === undefined) return undefined
  const spare = new Set(sorted(believed.spares.pci))
  return { ...says, pci: says.pci.filter((place) => !spare.has(sorted([place])[0]!)) }
}

function sorted(values: readonly object[]): string[] {
  const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value)
  return values.map((value) => JSON.stringify(Object.entries(value).sort(), plain)).sort()
}
