import { once } from 'node:events'
import type { Refusal } from '@upcall/vhost-user'
import type { Context } from '../../../context.js'
import { UsageError } from '../../../errors.js'
import { ServiceManager } from '../../../service-manager.js'
import { DeviceSet } from './device-set.js'
import { Journal } from './journal.js'
import type { Described } from './settings.js'
import { type Surroundings, thisMachine } from './surroundings.js'

/**
 * Serves the devices until the command is interrupted. Nothing is open when it resolves.
 *
 * @param reread - The devices of the file as it is now, if there is a file: for SIGHUP.
 * @throws UsageError if a device does not open.
 */
export async function serveDevices(
  { io, exit, output }: Context,
  devices: readonly Described[],
  reread?: () => Promise<readonly Described[]>,
  surroundings: Surroundings = thisMachine,
): Promise<void> {
  const journal = new Journal(output)
  const manager = new ServiceManager(io)
  const network = await surroundings.network()
  const set = new DeviceSet(network, surroundings, journal)
  network.on('refused', (refusal) => logRefusal(journal, set, refusal))
  const broken = new AbortController()
  const rereading = reread && new Rereading(set, journal, reread, (error) => broken.abort(error))
  const stopListening = rereading && io.onHangUp?.(() => rereading.ask())
  try {
    await set.start(devices)
    await manager.ready(devices.map(({ settings }) => settings.socket).join(', '))
    exit.servesUntilTold = true
    await aborted(AbortSignal.any([io.signal, broken.signal]))
    if (broken.signal.aborted) throw broken.signal.reason
  } finally {
    await manager.stopping()
    stopListening?.()
    await rereading?.end()
    await set.close()
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort')
}

/** A connection was refused by the policy of one of the two, or there is no guest with that CID. */
function logRefusal(journal: Journal, set: DeviceSet, { from, to, type, reason }: Refusal): void {
  // A guest that floods others fills its own lines, not theirs.
  const [cid, kind] = set.has(from.cid) ? [from.cid, 'guest refused'] : [to.cid, 'host refused']
  const port = from.port === 0 ? '' : ` port ${from.port}`
  const text = `from CID ${from.cid}${port} to CID ${to.cid} port ${to.port} refused: ${reason}`
  journal.saySparingly('refused', cid, { from, to, type, reason }, text, kind)
}

/** One file after the other: what was asked for while one is being applied is one more afterwards. */
class Rereading {
  readonly #set: DeviceSet
  readonly #journal: Journal
  readonly #reread: () => Promise<readonly Described[]>
  readonly #onBroken: (error: unknown) => void
  #asked = false
  #ended = false
  #working: Promise<void> | undefined

  /** @param onBroken called with an error that is a mistake in upcall, rather than in the file. */
  constructor(set: DeviceSet, journal: Journal, reread: () => Promise<readonly Described[]>, onBroken: (error: unknown) => void) {
    this.#set = set
    this.#journal = journal
    this.#reread = reread
    this.#onBroken = onBroken
  }

  ask(): void {
    this.#asked = true
    this.#working ??= this.#work().catch(this.#onBroken)
  }

  /** Resolves when nothing is being applied, and nothing will be. */
  async end(): Promise<void> {
    this.#ended = true
    await this.#working
  }

  async #work(): Promise<void> {
    while (this.#asked && !this.#ended) {
      this.#asked = false
      await this.#once()
    }
    this.#working = undefined
  }

  async #once(): Promise<void> {
    let wanted: readonly Described[]
    try {
      wanted = await this.#reread()
    } catch (error) {
      if (!(error instanceof UsageError)) throw error
      this.#journal.failed('reload-failed', undefined, error)
      return
    }
    const changes = await this.#set.change(wanted)
    const parts = Object.entries(changes).flatMap(([name, cids]) => (cids.length === 0 ? [] : [`${name} ${cids.join(', ')}`]))
    this.#journal.say('reloaded', changes, () => `reloaded: ${parts.length === 0 ? 'nothing has changed' : parts.join('; ')}`)
  }
}
