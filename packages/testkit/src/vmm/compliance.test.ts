import type { Machine } from '@upcall/vmm'
import { describe, expect, it } from 'vitest'
import { makeRig, type Rig } from '../../../vmm/testing/rig.js'
import { type ComplianceTest, type MachineFeatures, machineCompliance } from './index.js'

const FEATURES: MachineFeatures = { cpus: true, drives: true, pci: true, memory: 2 ** 30, guest: true, kill: true }

type Broken = (machine: Rig['machine']) => Partial<Machine>

function testsOf(broken: Broken = () => ({}), features = FEATURES, timeoutMs = 500): ComplianceTest[] {
  const start = async () => {
    const rig = await makeRig({ maxCpus: 4 })
    const { machine, manager } = rig
    const overrides = broken(machine)
    const subject = new Proxy(machine, {
      get(target, name) {
        const value: unknown = Reflect.get(name in overrides ? overrides : target, name)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
    return { machine: subject, manager, kill: () => machine.kill(), close: async () => rig[Symbol.asyncDispose]() }
  }
  return machineCompliance({ name: 'a machine', features, start }, { timeoutMs })
}

const nothing = async () => {}
const never = () => new Promise<never>(() => {})
const refuse = async () => {
  throw new Error('there is nothing like that')
}

/** What is wrong with a machine, the test that it fails, and how it is broken. */
const BROKEN: readonly (readonly [wrong: string, test: string, broken: Broken])[] = [
  ['says that it still boots', 'its guest has booted and is not gone', () => ({ guest: 'booting' })],
  [
    'has a guest that is gone',
    'its guest has booted and is not gone',
    () => ({ guestGone: AbortSignal.abort(new Error('gone')) }),
  ],
  ['rejects a report', 'a report does not reject, and has the boot CPU', () => ({ report: refuse })],
  [
    'reports no boot CPU',
    'a report does not reject, and has the boot CPU',
    () => ({
      report: async () => ({ booted: true, paused: false, crashed: false, cpus: { online: [] }, mmio: [], pci: [] }),
    }),
  ],
  [
    'reports a dead guest',
    'a guest that dies is gone; its hardware can be taken out, and the next guest boots',
    (machine) => {
      const { kernel } = machine
      return { report: async () => ({ ...kernel.state, booted: true }) }
    },
  ],
  ['has any memory', 'it has the memory that it says it has, and no other', () => ({ hasMemory: () => true })],
  ['takes any memory', 'it has the memory that it says it has, and no other', () => ({ checkMemory() {} })],
  [
    'refuses memory in no words',
    'it has the memory that it says it has, and no other',
    () => ({
      checkMemory(bytes) {
        if (bytes % 2 ** 20 !== 0) throw new Error('no')
      },
    }),
  ],
  ['does not resize its memory', 'its memory is resized, and back again', () => ({ resizeMemory: nothing })],
  ['resizes its memory without end', 'its memory is resized, and back again', () => ({ resizeMemory: never })],
  [
    'starts no vCPU',
    'the guest brings online what was started, and lets go of what is to be stopped',
    () => ({ startCpus: nothing }),
  ],
  [
    'starts vCPUs too late',
    'another controller takes the VM up, and finds it as it was left',
    (machine) => ({
      startCpus: async (ids) => void setTimeout(() => void machine.startCpus(ids), 50),
    }),
  ],
  [
    'starts one vCPU at a time only',
    'vCPUs are started and stopped, any number at once, and started again',
    (machine) => ({
      startCpus: async (ids) => (ids.length > 1 ? refuse() : machine.startCpus(ids)),
    }),
  ],
  [
    'rejects if a vCPU was never started',
    'stopping a vCPU that was never started does not reject',
    (machine) => ({
      stopCpus: async (ids) => (ids.every((id) => machine.cpus.has(id)) ? machine.stopCpus(ids) : refuse()),
    }),
  ],
  [
    'keeps a vCPU that was started again among the spares',
    'vCPUs are started and stopped, any number at once, and started again',
    (machine) => ({
      async stopCpus(ids) {
        await machine.stopCpus(ids)
        machine.spares = { cpus: [...machine.spares.cpus, ...ids], pci: [] }
      },
    }),
  ],
  [
    'has one window for all',
    'windows do not overlap, and what is chosen is free',
    (machine) => ({ chooseWindow: () => machine.chooseWindow([]) }),
  ],
  ['has no window', 'windows do not overlap, and what is chosen is free', () => ({ chooseWindow: () => undefined })],
  [
    'gives a window out once',
    'windows do not overlap, and what is chosen is free',
    (machine) => {
      const given = new Set<bigint>()
      return {
        chooseWindow(taken) {
          const window = machine.chooseWindow(taken)
          if (!window || given.has(window.base)) return undefined
          given.add(window.base)
          return window
        },
      }
    },
  ],
  [
    'does not free a window',
    'a drive is attached and detached, twice in the same window',
    (machine) => {
      const full = new Set<bigint>()
      return {
        attachDrive: async (drive) => {
          if (full.has(drive.window.base)) return refuse()
          full.add(drive.window.base)
          return machine.attachDrive(drive)
        },
      }
    },
  ],
  ['attaches drives without end', 'the guest finds a drive that was attached, and lets go of it', () => ({ attachDrive: never })],
  [
    'rejects if a drive was never attached',
    'detaching a drive that was never attached does not reject',
    (machine) => ({
      detachDrive: async (drive) => (machine.drives.has(drive.id) ? machine.detachDrive(drive) : refuse()),
    }),
  ],
  [
    'has one place for all',
    'places differ, and an address is the place of that address',
    (machine) => ({ choosePlace: (_, bdf) => machine.choosePlace([], bdf) }),
  ],
  [
    'takes any address',
    'an address that it does not have, or that is not an address, is invalid',
    (machine) => ({ choosePlace: (taken) => machine.choosePlace(taken, undefined) }),
  ],
  [
    'refuses an address in no words',
    'an address that it does not have, or that is not an address, is invalid',
    (machine) => ({
      choosePlace(taken, bdf) {
        try {
          return machine.choosePlace(taken, bdf)
        } catch {
          throw new Error('no')
        }
      },
    }),
  ],
  ['plugs nothing in', 'the guest finds a PCI device that was plugged in, and lets go of it', () => ({ plugPci: nothing })],
  ['plugs in without end', 'a device is plugged in and out', () => ({ plugPci: never })],
  [
    'rejects if a device was never plugged in',
    'unplugging a device that was never plugged in does not reject',
    (machine) => ({
      unplugPci: async (device) => (machine.pci.size > 0 ? machine.unplugPci(device) : refuse()),
    }),
  ],
  [
    'does not tell that its guest died',
    'a guest that dies is gone; its hardware can be taken out, and the next guest boots',
    () => ({ guest: 'booted' }),
  ],
  [
    'does not tell those who wait that its guest died',
    'a guest that dies is gone; its hardware can be taken out, and the next guest boots',
    () => ({ guestGone: new AbortController().signal }),
  ],
  ['does not boot another guest', 'a dead machine is not plugged into, or the next guest finds it', () => ({ boot() {} })],
  [
    'boots another guest without its hardware',
    'a reconcile boots another guest, which has all that the last one had',
    (machine) => ({
      boot() {
        machine.cpus.clear()
        machine.cpus.add(0)
        machine.pci.clear()
        machine.boot()
      },
    }),
  ],
  [
    'does not tell that the next guest has forgotten its windows',
    'a reconcile boots another guest, which has all that the last one had',
    () => ({ resets: 0 }),
  ],
  [
    'cannot be taken apart when it is dead',
    'a guest that dies is gone; its hardware can be taken out, and the next guest boots',
    (machine) => ({
      detachDrive: async (drive) => (machine.guest === 'dead' ? refuse() : machine.detachDrive(drive)),
      unplugPci: async (device) => (machine.guest === 'dead' ? refuse() : machine.unplugPci(device)),
    }),
  ],
]

describe('a sound machine', () => {
  it.each(testsOf(undefined, undefined, 20_000).map(({ name, run }) => [name, run] as const))('%s', (_, run) => run())
})

describe('a machine that', () => {
  it.each(BROKEN)('%s does not pass: %s', async (_, name, broken) => {
    const test = testsOf(broken).find((each) => each.name === name)
    await expect(test!.run()).rejects.toThrow()
  })

  it.each([
    ['drives', 'a machine without windows says so'],
    ['pci', 'a machine without PCI says so'],
  ])('has %s in secret does not pass: %s', async (feature, name) => {
    const test = testsOf(undefined, { ...FEATURES, [feature]: false }).find((each) => each.name === name)
    await expect(test!.run()).rejects.toThrow()
  })
})

it('has no test that every machine passes', () => {
  expect(new Set(BROKEN.map(([, name]) => name))).toEqual(new Set(testsOf().map(({ name }) => name)))
})
