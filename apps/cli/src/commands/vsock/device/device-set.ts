import type { VsockNetwork } from '@upcall/vhost-user'
import { cannotUse } from './cannot-use.js'
import type { Journal } from './journal.js'
import type { KeyName } from './keys.js'
import { type Change, RunningDevice } from './running-device.js'
import type { Described } from './settings.js'
import type { Surroundings } from './surroundings.js'

/** What a new file has brought about, by CID. */
export interface Changes {
  readonly added: readonly number[]
  readonly removed: readonly number[]
  /** These have new limits, groups or paths, and the same QEMU. */
  readonly changed: readonly number[]
  /** These were closed and opened again: what was changed can only be given to a new device. */
  readonly replaced: readonly number[]
  /** These could not be opened, and are tried again with the next file. */
  readonly failed: readonly number[]
}

type Network = Pick<VsockNetwork, 'add' | 'close'>

/** All devices of the command. */
export class DeviceSet {
  readonly #network: Network
  readonly #surroundings: Surroundings
  readonly #journal: Journal
  readonly #running = new Map<number, RunningDevice>()

  constructor(network: Network, surroundings: Surroundings, journal: Journal) {
    this.#network = network
    this.#surroundings = surroundings
    this.#journal = journal
  }

  has(cid: number): boolean {
    return this.#running.has(cid)
  }

  /** Opens the first ones. @throws UsageError for the first that does not open. */
  async start(all: readonly Described[]): Promise<void> {
    for (const described of all) await this.#open(described)
  }

  /** Makes the devices what a new file says. Those that are as before are not touched. */
  async change(all: readonly Described[]): Promise<Changes> {
    const wanted = new Map(all.map((described) => [described.settings.guestCid, described]))
    const removed = [...this.#running.keys()].filter((cid) => !wanted.has(cid))
    const changes = all.map((described) => ({ described, change: this.#changeTo(described) }))
    const those = (wanted: Change | 'add') => changes.flatMap(({ described, change }) => (change === wanted ? [described] : []))
    const [added, replaced, moved, limited] = [those('add'), those('replace'), those('front'), those('limits')]
    // At first everything goes that stands in the way of what is new.
    for (const cid of [...removed, ...cidsOf(replaced)]) await this.#close(cid)
    for (const { settings } of moved) await this.#running.get(settings.guestCid)!.closeFront()
    for (const { settings } of [...moved, ...limited]) this.#running.get(settings.guestCid)!.setLimits(settings)
    const failed: number[] = []
    const attempt = async (described: Described, open: () => Promise<void>) => {
      try {
        await open()
      } catch (error) {
        failed.push(described.settings.guestCid)
        this.#journal.failed('failed', described.settings.guestCid, error)
      }
    }
    for (const described of moved) await attempt(described, () => this.#reopenFront(described))
    for (const described of [...replaced, ...added]) await attempt(described, () => this.#open(described))
    const succeeded = (list: readonly Described[]) => cidsOf(list).filter((cid) => !failed.includes(cid))
    const changed = succeeded([...moved, ...limited])
    return { added: succeeded(added), removed, changed, replaced: succeeded(replaced), failed }
  }

  /** Closes what leads to the guests, and then the devices. */
  async close(): Promise<void> {
    await Promise.all([...this.#running.values()].map((device) => device.closeFront()))
    await this.#network.close()
    for (const cid of this.#running.keys()) this.#sayClosed(cid)
    this.#running.clear()
  }

  #changeTo({ settings }: Described): Change | 'add' {
    return this.#running.get(settings.guestCid)?.changeTo(settings) ?? 'add'
  }

  async #open({ given, settings }: Described): Promise<void> {
    const device = new RunningDevice(settings, this.#surroundings, this.#journal)
    await device.open(this.#network).catch(cannotUse(given, 'socket'))
    try {
      await device.openFront().catch(cannotUse(given, frontKey(settings)))
    } catch (error) {
      await device.close()
      throw error
    }
    this.#running.set(settings.guestCid, device)
  }

  async #reopenFront({ given, settings }: Described): Promise<void> {
    await this.#running
      .get(settings.guestCid)!
      .openFront()
      .catch(cannotUse(given, frontKey(settings)))
  }

  async #close(cid: number): Promise<void> {
    await this.#running.get(cid)!.close()
    this.#running.delete(cid)
    this.#sayClosed(cid)
  }

  #sayClosed(cid: number): void {
    this.#journal.say('closed', { cid }, () => `the device of guest ${cid} is closed`)
  }
}

const cidsOf = (list: readonly Described[]): number[] => list.map(({ settings }) => settings.guestCid)

const frontKey = ({ backend }: Described['settings']): KeyName => (backend.kind === 'unix' ? 'uds-path' : 'forward-listen')
