import type { DeviceManager } from '@upcall/device-manager'
import type { Arch } from '@upcall/wire'
import { type About, bringIn, bringOut, type Context, incomplete } from './change.js'
import type { Cpu } from './devices.js'
import { type Inventory, presentCpus, unknownCpus } from './inventory.js'
import type { Machine } from './port.js'

/** What a resize changed: ids, and the ids that are present now. */
export interface Resized {
  readonly added: readonly number[]
  readonly removed: readonly number[]
  readonly present: readonly number[]
}

interface Hotplug {
  readonly machine: Machine
  readonly manager: DeviceManager<Arch>
  readonly inventory: Inventory
  /** Makes sure that the guest can be asked. */
  begin(about: About): Promise<Context<Cpu>>
}

/** Brings the number of vCPUs to a target, one vCPU at a time: the guest does not say how far it got in a batch that it refuses. */
export class CpuResizer {
  readonly #hotplug: Hotplug

  constructor(hotplug: Hotplug) {
    this.#hotplug = hotplug
  }

  /** If it fails in the middle, the vCPUs are taken back to where they began, unless it is unknown what the guest has. */
  async resize(about: About, target: number, context: Context<Cpu>): Promise<Resized> {
    const { inventory } = this.#hotplug
    const before = presentCpus(inventory)
    try {
      return await this.#bringTo(target, context)
    } catch (error) {
      const present = presentCpus(inventory)
      if (present.length === before.length) throw error
      const unknown = unknownCpus(inventory)
      if (unknown.length > 0)
        throw incomplete(about, [error], {
          what: `${present.length} vCPUs are certain`,
          next: `Reconcile to find out about vCPU ${unknown.join(', ')}.`,
        })
      throw await this.takeBack(about, before.length, error)
    }
  }

  /** Resolves with the error to throw: the same one, or if this fails too, one of both. */
  async takeBack(about: About, count: number, error: unknown): Promise<unknown> {
    try {
      await this.#bringTo(count, await this.#hotplug.begin(about))
      return error
    } catch (failure) {
      const { length } = presentCpus(this.#hotplug.inventory)
      return incomplete(about, [error, failure], { what: `going back to ${count} vCPUs stopped at ${length}` })
    }
  }

  async #bringTo(target: number, context: Context<Cpu>): Promise<Resized> {
    const { inventory } = this.#hotplug
    const added: number[] = []
    const removed: number[] = []
    for (let present = presentCpus(inventory); present.length !== target; present = presentCpus(inventory)) {
      if (present.length < target) {
        const id = lowestFree(present)
        await this.#add(id, present, context)
        added.push(id)
      } else {
        const id = Math.max(...present)
        await this.#remove(id, present, context)
        removed.push(id)
      }
    }
    return { added, removed, present: presentCpus(inventory) }
  }

  async #add(id: number, present: readonly number[], context: Context<Cpu>): Promise<void> {
    const { machine, manager } = this.#hotplug
    await bringIn(context, {
      entry: { id, status: 'adding' },
      plug: () => machine.startCpus([id]),
      announce: (signal) => manager.addCpus(this.#named(id), { present: this.#counted(present), signal }),
      isThere: ({ cpus }) => cpus.online.includes(id),
      unplug: () => machine.stopCpus([id]),
    })
  }

  async #remove(id: number, present: readonly number[], context: Context<Cpu>): Promise<void> {
    const { machine, manager, inventory } = this.#hotplug
    await bringOut(context, {
      entry: inventory.cpus.get(id)!,
      release: (signal) => manager.removeCpus(this.#named(id), { present: this.#counted(present), signal }),
      isGone: (_, guest) => guest !== undefined && !guest.cpus.online.includes(id),
      unplug: () => machine.stopCpus([id]),
    })
  }

  /** An aarch64 guest takes the lowest or the highest by itself. */
  #named(id: number): { apicIds: readonly number[] } | { count: number } {
    return this.#isX86 ? { apicIds: [id] } : { count: 1 }
  }

  #counted(present: readonly number[]): readonly number[] | number {
    return this.#isX86 ? present : present.length
  }

  get #isX86(): boolean {
    return this.#hotplug.manager.arch === 'x86_64'
  }
}

function lowestFree(present: readonly number[]): number {
  let id = 0
  while (present.includes(id)) id++
  return id
}
