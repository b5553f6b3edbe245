import type { DeviceManager } from '@upcall/device-manager'
import type { Arch } from '@upcall/wire'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { makeRig, type Rig } from '../testing/rig.js'
import type { Machine } from './port.js'
import type { VmSnapshot } from './snapshot.js'
import { Vm } from './vm.js'

const DISK = { pathOnHost: '/srv/data.img', isReadOnly: false }

/** A controller that may die: from then on nothing that it does has an effect, and nothing that it waits for comes. */
class Controller {
  readonly vm: Vm
  /** What a disk would hold when it dies. */
  saved: string
  #steps: number
  #died = () => {}
  readonly death = new Promise<void>((resolve) => {
    this.#died = resolve
  })
  readonly #manager: DeviceManager<Arch>

  /** @param steps - After so many steps it dies. */
  constructor({ machine, connect }: Rig, steps = Number.POSITIVE_INFINITY, snapshot?: string) {
    this.#steps = steps
    this.#manager = connect()
    const options = { machine: this.#mortal(machine), manager: this.#manager, save: (value: VmSnapshot) => this.#save(value) }
    this.vm = snapshot === undefined ? new Vm({ ...options, cpus: 1, maxCpus: 4 }) : Vm.restore(JSON.parse(snapshot), options)
    this.saved = JSON.stringify(this.vm.snapshot())
  }

  diesAfter(steps: number): void {
    this.#steps = steps
  }

  get isDead(): boolean {
    return this.#steps <= 0
  }

  /** One step more. Never resolves for the dead. */
  async step(): Promise<void> {
    if (this.#steps > 0 && --this.#steps === 0) {
      this.#died()
      await this.#manager.close()
    }
    if (this.isDead) await new Promise(() => {})
  }

  ready(): Promise<void> {
    return this.#manager.ready({ timeoutMs: 20_000 })
  }

  async close(): Promise<void> {
    this.#steps = 0
    await this.#manager.close()
  }

  async #save(value: VmSnapshot): Promise<void> {
    await this.step()
    this.saved = JSON.stringify(value)
    await this.step()
  }

  /** It may die before and after everything that it does to the hardware. */
  #mortal(machine: Machine): Machine {
    return new Proxy(machine, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target)
        if (typeof value !== 'function') return value
        if (!/^(start|stop|attach|detach|plug|unplug|report)/.test(String(name))) return value.bind(target)
        return async (...args: unknown[]) => {
          await this.step()
          const result: unknown = await value.apply(target, args)
          await this.step()
          return result
        }
      },
    })
  }
}

type Change =
  | { readonly type: 'resize'; readonly target: number }
  | { readonly type: 'add' | 'remove'; readonly kind: 'drive' | 'pci'; readonly id: string }

/** A change that cannot be made is refused, and leaves everything as it is. */
async function make(vm: Vm, change: Change): Promise<void> {
  const making = () => {
    if (change.type === 'resize') return vm.resize(change.target)
    const { type, kind, id } = change
    if (kind === 'drive') return type === 'add' ? vm.addDrive(id, DISK) : vm.removeDrive(id)
    return type === 'add' ? vm.addPci(id) : vm.removePci(id)
  }
  await making().catch(() => {})
}

/** What is true of the hardware, the guest and the belief of the VMM is the same. */
async function expectTruth(vm: Vm, { machine }: Rig): Promise<void> {
  const { believed, guest } = await vm.view()
  expect(believed.cpus.unknown).toEqual([])
  expect([...believed.drives, ...believed.pci].map(({ status }) => status).filter((status) => status !== 'present')).toEqual([])
  expect(guest?.cpus.online).toEqual(believed.cpus.present)
  expect([...machine.cpus].sort()).toEqual(believed.cpus.present)
  expect([...machine.drives].sort()).toEqual(believed.drives.map(({ id }) => id).sort())
  expect(sorted(guest!.mmio)).toEqual(sorted(believed.drives.map(({ window }) => window)))
  expect(machine.pci.size).toBe(believed.pci.length)
  expect(sorted(guest!.pci)).toEqual(sorted(believed.pci.map(({ place }) => place)))
}

function sorted(values: readonly object[]): string[] {
  const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value)
  return values.map((value) => JSON.stringify(Object.entries(value).sort(), plain)).sort()
}

/** So that there is something to take away. */
const FIRST: readonly Change[] = [
  { type: 'resize', target: 3 },
  { type: 'add', kind: 'drive', id: 'a' },
  { type: 'add', kind: 'pci', id: 'a' },
]

const device = { kind: fc.constantFrom('drive' as const, 'pci' as const), id: fc.constantFrom('a', 'b') }
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ type: fc.constant('resize' as const), target: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ type: fc.constant('add' as const), ...device }),
  fc.record({ type: fc.constant('remove' as const), ...device }),
)

describe('a controller that dies and takes its VM up again', () => {
  it.each(['x86_64', 'aarch64'] as const)('%s: finds the truth, wherever it died', { timeout: 120_000 }, async (arch) => {
    const wasDead = { before: 0, during: 0 }
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 40 }),
        fc.constantFrom('lives', 'is reset', 'dies'),
        fc.boolean(),
        async (changes, steps, guest, diesAgain) => {
          let atRequest = () => {}
          await using rig = await makeRig({ arch, maxCpus: 4, onRequest: () => atRequest() })
          const { machine } = rig
          let controller = new Controller(rig)
          // The guest gets a request and does it; there is no controller for its reply.
          atRequest = () => void controller.step()
          await controller.ready()
          for (const each of FIRST) await make(controller.vm, each)
          controller.diesAfter(steps)
          for (const each of changes) await Promise.race([make(controller.vm, each), controller.death])
          wasDead[controller.isDead ? 'during' : 'before']++
          await controller.close()
          if (guest === 'is reset') await machine.reboot()
          if (guest === 'dies') machine.guest = 'dead'

          for (const limit of diesAgain ? [3, Number.POSITIVE_INFINITY] : [Number.POSITIVE_INFINITY]) {
            controller = new Controller(rig, limit, controller.saved)
            await Promise.race([controller.vm.reconcile(), controller.death])
            if (limit !== Number.POSITIVE_INFINITY) await controller.close()
          }
          await expectTruth(controller.vm, rig)
          expect(await controller.vm.reconcile()).toEqual({ restarted: false, settled: [], differences: [] })
          for (const each of changes) await make(controller.vm, each)
          await expectTruth(controller.vm, rig)
          await controller.close()
        },
      ),
      { numRuns: 100, seed: 20261126 },
    )
    expect(Math.min(wasDead.before, wasDead.during)).toBeGreaterThan(5)
  })
})
