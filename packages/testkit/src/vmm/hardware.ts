import { deepStrictEqual, ok, rejects, strictEqual, throws } from 'node:assert/strict'
import { type Drive, isVmError, type Machine, overlaps, type PciDevice, sameFunction, type Window } from '@upcall/vmm'
import type { ComplianceMachine } from './machine.js'
import type { MachineScope } from './scope.js'

/** One test of the suite. */
export type Test = [name: string, run: (scope: MachineScope) => Promise<void>]

/** What a machine does by itself, whatever the guest makes of it. */
export function hardware({ features }: ComplianceMachine): Test[] {
  return [
    ...basics(features.memory),
    ...(features.cpus ? vcpus() : []),
    ...(features.drives ? drives() : noDrives()),
    ...(features.pci ? pciDevices() : noPci()),
  ]
}

function basics(memory: number | undefined): Test[] {
  const tests: Test[] = [
    [
      'its guest has booted and is not gone',
      async ({ machine }) => {
        strictEqual(machine.guest, 'booted')
        strictEqual(machine.guestGone.aborted, false)
        deepStrictEqual(machine.spares.pci, [])
      },
    ],
    [
      'a report does not reject, and has the boot CPU',
      async ({ machine, until }) => {
        const report = await until(machine.report())
        if (report !== undefined) ok(report.cpus.online.includes(0), `vCPU 0 is not among ${report.cpus.online}`)
      },
    ],
    [
      'it has the memory that it says it has, and no other',
      async ({ machine, until }) => {
        const { memory } = machine
        ok(Number.isSafeInteger(memory) && memory > 0, `memory is ${memory}`)
        machine.checkMemory(memory)
        strictEqual(machine.hasMemory(memory), true)
        strictEqual(machine.hasMemory(memory + 1), false)
        await until(machine.resizeMemory(memory))
        strictEqual(machine.memory, memory)
        throws(() => machine.checkMemory(1), invalid)
      },
    ],
  ]
  if (memory !== undefined)
    tests.push([
      'its memory is resized, and back again',
      async ({ machine, until }) => {
        const before = machine.memory
        for (const bytes of [memory, before]) {
          machine.checkMemory(bytes)
          await until(machine.resizeMemory(bytes))
          strictEqual(machine.memory, bytes)
          strictEqual(machine.hasMemory(bytes), true)
        }
      },
    ])
  return tests
}

function vcpus(): Test[] {
  return [
    [
      'vCPUs are started and stopped, any number at once, and started again',
      async ({ machine, until }) => {
        await until(machine.startCpus([]))
        await until(machine.startCpus([1, 2]))
        await until(machine.stopCpus([2]))
        await until(machine.startCpus([2]))
        deepStrictEqual(among(machine.spares.cpus, 1, 2), [])
        await until(machine.stopCpus([2, 1]))
      },
    ],
    [
      'stopping a vCPU that was never started does not reject',
      async ({ machine, until }) => {
        await until(machine.stopCpus([]))
        await until(machine.stopCpus([2, 1]))
        await until(machine.startCpus([1]))
        deepStrictEqual(among(machine.spares.cpus, 1), [])
        await until(machine.stopCpus([1]))
      },
    ],
  ]
}

function drives(): Test[] {
  return [
    [
      'windows do not overlap, and what is chosen is free',
      async ({ machine }) => {
        const taken: Window[] = []
        for (let window = machine.chooseWindow(taken); window && taken.length < 200; window = machine.chooseWindow(taken)) {
          for (const other of taken) ok(!overlaps(window, other), 'a window overlaps a window that is taken')
          taken.push(window)
        }
        ok(taken.length > 0, 'there is no window')
        deepStrictEqual(machine.chooseWindow(taken.slice(1)), taken[0], 'a window that is free again is chosen again')
      },
    ],
    [
      'a drive is attached and detached, twice in the same window',
      async (scope) => {
        const drive = aDrive(scope)
        for (let times = 0; times < 2; times++) {
          await scope.until(scope.machine.attachDrive(drive))
          await scope.until(scope.machine.detachDrive(drive))
        }
      },
    ],
    [
      'detaching a drive that was never attached does not reject',
      async (scope) => scope.until(scope.machine.detachDrive(aDrive(scope))),
    ],
  ]
}

function noDrives(): Test[] {
  return [['a machine without windows says so', async ({ machine }) => throws(() => machine.chooseWindow([]), invalid)]]
}

function pciDevices(): Test[] {
  return [
    [
      'places differ, and an address is the place of that address',
      async ({ machine }) => {
        const first = place(machine)
        const second = machine.choosePlace([first], undefined)
        ok(second && !sameFunction(first, second), 'a place that is taken is chosen')
        deepStrictEqual(machine.choosePlace([], bdfOf(second)), second)
      },
    ],
    [
      'an address that it does not have, or that is not an address, is invalid',
      async ({ machine }) => {
        for (const bdf of ['', 'eth0', 'ff:1f.7', '0001:00:05.0']) throws(() => machine.choosePlace([], bdf), invalid)
      },
    ],
    [
      'a device is plugged in and out',
      async (scope) => {
        const device = aDevice(scope)
        await scope.until(scope.machine.plugPci(device))
        await scope.until(scope.machine.unplugPci(device))
      },
    ],
    [
      'unplugging a device that was never plugged in does not reject',
      async (scope) => scope.until(scope.machine.unplugPci(aDevice(scope))),
    ],
  ]
}

function noPci(): Test[] {
  return [['a machine without PCI says so', async ({ machine }) => throws(() => machine.choosePlace([], undefined), invalid)]]
}

/** What only a machine whose guest can be ended shows. */
export function dying({ features }: ComplianceMachine): Test[] {
  return [
    [
      'a guest that dies is gone; its hardware can be taken out, and the next guest boots',
      async (scope) => {
        const { machine, until } = scope
        const gone = machine.guestGone
        const drive = features.drives ? aDrive(scope) : undefined
        const device = features.pci ? aDevice(scope) : undefined
        if (drive) await until(machine.attachDrive(drive))
        if (device) await until(machine.plugPci(device))
        await until(scope.kill())
        await scope.eventually(() => machine.guest === 'dead', 'the guest is dead')
        await scope.eventually(() => gone.aborted, 'guestGone aborts')
        ok(gone.reason instanceof Error, 'the reason of guestGone is an error')
        strictEqual(await until(machine.report()), undefined)
        if (drive) await until(machine.detachDrive(drive))
        if (device) await until(machine.unplugPci(device))
        if (features.cpus) await until(machine.stopCpus([1]))
        machine.boot()
        strictEqual(machine.guestGone.aborted, false)
        await scope.eventually(() => machine.guest === 'booted', 'the next guest has booted')
      },
    ],
    [
      'a dead machine is not plugged into, or the next guest finds it',
      async (scope) => {
        const { machine, until } = scope
        await until(scope.kill())
        await scope.eventually(() => machine.guest === 'dead', 'the guest is dead')
        const drive = features.drives ? aDrive(scope) : undefined
        if (drive) await until(machine.attachDrive(drive)).catch(() => {})
        machine.boot()
        await scope.eventually(() => machine.guest === 'booted', 'the next guest has booted')
        if (drive) await until(machine.detachDrive(drive))
      },
    ],
  ]
}

function aDrive({ machine, disk }: MachineScope): Drive {
  const window = machine.chooseWindow([])
  ok(window, 'there is no window')
  return { id: 'compliance', window, ...disk, status: 'adding' }
}

function aDevice({ machine }: MachineScope): PciDevice {
  return { id: 'compliance', place: place(machine), status: 'adding' }
}

function place(machine: Machine): PciDevice['place'] {
  const found = machine.choosePlace([], undefined)
  ok(found, 'there is no place')
  return found
}

function bdfOf({ bus, devfn }: PciDevice['place']): string {
  const hex = (value: number) => value.toString(16).padStart(2, '0')
  return `${hex(bus)}:${hex(devfn >> 3)}.${devfn & 7}`
}

function among(ids: readonly number[], ...wanted: number[]): number[] {
  return wanted.filter((id) => ids.includes(id))
}

function invalid(error: unknown): true {
  ok(isVmError(error) && error.code === 'INVALID', `a VmError INVALID is expected, not ${String(error)}`)
  return true
}

/** A check for `rejects`: a VmError of that code. */
export async function rejectsWith(code: string, promise: Promise<unknown>): Promise<void> {
  await rejects(promise, (error) => {
    ok(isVmError(error) && error.code === code, `a VmError ${code} is expected, not ${String(error)}`)
    return true
  })
}
