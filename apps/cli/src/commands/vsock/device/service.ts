import { once } from 'node:events'
import type { Refusal } from '@upcall/vhost-user'
import type { Context } from '../../../context.js'
import { UsageError } from '../../../errors.js'
import { ServiceManager } from '../../../service-manager.js'
import { DeviceSet } from './device-set.js'
import { Journal } from './journal.js'
import { Links } from './links.js'
import type { Wanted } from './options.js'
import { type Surroundings, thisMachine } from './surroundings.js'

/**
 * Serves the devices until the command is interrupted. Nothing is open when it resolves.
 *
 * @param reread - What the file says now, if there is a file: for SIGHUP.
 * @throws UsageError if a device or --link-listen does not open.
 */
export async function serveDevices(
  { io, exit, output }: Context,
  { devices, links }: Wanted,
  reread?: () => Promise<Wanted>,
  surroundings: Surroundings = thisMachine,
): Promise<void> {
  const journal = new Journal(output)
  const manager = new ServiceManager(io)
  const network = await surroundings.network()
  const set = new DeviceSet(network, surroundings, journal)
  const linked = new Links(network, journal)
  network.on('refused', (refusal) => logRefusal(journal, set, refusal))
  network.on('reach', ({ cid, isReachable }) =>
    journal.saySparingly('reach', cid, { isReachable }, isReachable ? 'reached over a link' : 'no longer reached'),
  )
  network.on('conflict', ({ cid }) =>
    journal.saySparingly('conflict', cid, {}, 'a process beyond a link has a guest with this CID, too, which is not reached'),
  )
  const broken = new AbortController()
  const rereading = reread && new Rereading({ set, linked, journal, reread }, (error) => broken.abort(error))
  const stopListening = rereading && io.onHangUp?.(() => rereading.ask())
  try {
    await set.start(devices)
    await linked.start(links)
    await manager.ready(devices.map(({ settings }) => settings.socket).join(', '))
    exit.servesUntilTold = true
    await aborted(AbortSignal.any([io.signal, broken.signal]))
    if (broken.signal.aborted) throw broken.signal.reason
  } finally {
    await manager.stopping()
    stopListening?.()
    await rereading?.end()
    await linked.close()
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

interface Parts {
  readonly set: DeviceSet
  readonly linked: Links
  readonly journal: Journal
  readonly reread: () => Promise<Wanted>
}

/** One file after the other: what was asked for while one is being applied is one more afterwards. */
class Rereading {
  readonly #parts: Parts
  readonly #onBroken: (error: unknown) => void
  #asked = false
  #ended = false
  #working: Promise<void> | undefined

  /** @param onBroken called with an error that is a mistake in upcall, rather than in the file. */
  constructor(parts: Parts, onBroken: (error: unknown) => void) {
    this.#parts = parts
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
    const { set, linked, journal, reread } = this.#parts
    let wanted: Wanted
    try {
      wanted = await reread()
    } catch (error) {
      if (!(error instanceof UsageError)) throw error
      journal.failed('reload-failed', undefined, error)
      return
    }
    const changes = { ...(await set.change(wanted.devices)), links: await linked.change(wanted.links) }
    const parts = Object.entries(changes).flatMap(([name, all]) => (all.length === 0 ? [] : [`${name} ${all.join(', ')}`]))
    journal.say('reloaded', changes, () => `reloaded: ${parts.length === 0 ? 'nothing has changed' : parts.join('; ')}`)
  }
}
