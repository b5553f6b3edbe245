import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import type { MessagePort } from 'node:worker_threads'
import { checkClock, checkObject, wrongValue } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { unheldClock } from './clock.js'
import { VsockDeviceError } from './errors.js'
import { Hub, type Refusal } from './hub.js'
import { LinkDriver, type NetworkLink } from './network-link.js'
import { tell } from './tell.js'
import { VhostUserVsock, type VhostUserVsockOptions } from './vhost-user-vsock.js'

export interface VsockNetworkOptions {
  /** Devices to begin with. */
  devices?: readonly VhostUserVsockOptions[] | undefined
  /**
   * The time of all devices that have no clock of their own. Default: the system's, with timers that do not keep the process alive. All
   * clocks of a network must tell the same time: a connection between two guests has one deadline.
   */
  clock?: Clock | undefined
}

export interface VsockNetworkEvents {
  /** What the devices tell as `refused`: a guest that cannot be reached, or a policy that does not allow a connection. */
  refused: [refusal: Refusal]
  /** A guest of another network can be reached over a link from now on, or no longer. */
  reach: [change: { readonly cid: number; readonly isReachable: boolean }]
  /** A network beyond a link has a guest with a CID that is taken. That guest is not reachable as long as the other is. */
  conflict: [conflict: { readonly cid: number }]
}

/**
 * Several devices of one process: their guests reach each other by CID, as siblings, if they share a group. The packets go from
 * one guest's memory to the other's, and each guest's credit is told to the other: the network adds no buffer that a guest can make grow
 * beyond a bound (4 MiB for each sender).
 *
 * A guest under Linux needs nothing for it: without `vhost_vsock` loaded its kernel sends a connection to any CID above 2 to its device.
 */
export class VsockNetwork extends EventEmitter<VsockNetworkEvents> implements AsyncDisposable {
  readonly #hub: Hub
  readonly #clock: Clock | undefined
  readonly #links = new Set<NetworkLink>()
  readonly #devices = new Map<number, VhostUserVsock>()
  #closing: Promise<void> | undefined

  constructor(options: Pick<VsockNetworkOptions, 'clock'> = {}) {
    super()
    checkObject('options', options)
    if (options.clock !== undefined) checkClock(options.clock)
    this.#clock = options.clock
    this.#hub = new Hub(options.clock)
    this.#hub.onReach = (cid, isReachable) => tell(() => this.emit('reach', { cid, isReachable }))
    this.#hub.onConflict = (cid) => tell(() => this.emit('conflict', { cid }))
    this.#hub.onRefusal = (refusal) => tell(() => this.emit('refused', refusal))
  }

  /** By CID. A device that is closed leaves the network. */
  get devices(): ReadonlyMap<number, VhostUserVsock> {
    return this.#devices
  }

  /**
   * Makes a device of the network and listens.
   *
   * @throws {AddonError} where the addon does not load.
   * @throws {VsockDeviceError} `EADDRINUSE`: the path is in use, or a device of the network has the CID. `ABORTED` after `close()`.
   */
  async add(options: VhostUserVsockOptions): Promise<VhostUserVsock> {
    checkObject('options', options)
    if (this.#closing !== undefined) throw closedError('add')
    const device = new VhostUserVsock({ ...options, clock: options.clock ?? this.#clock }, this.#hub)
    const { guestCid } = device
    this.#devices.set(guestCid, device)
    device.on('state', ({ state }) => {
      if (state === 'closed' && this.#devices.get(guestCid) === device) this.#devices.delete(guestCid)
    })
    try {
      return await device.listen()
    } catch (error) {
      await device.close()
      throw error
    }
  }

  /**
   * Links this network to another one, in another thread or process: their guests reach each other by CID and group as if they were in one
   * network. The other side calls `link()` with the other end of `transport`: a `MessagePort` (of a `MessageChannel`), or a `Duplex` that
   * carries bytes, a Unix socket for instance. Each CID may be in one network only.
   *
   * Networks form a tree, mostly a star: every network links to one hub, and the hub passes packets on. A link that would make a loop is closed
   * (`loop`). Both sides trust each other; neither trusts a guest.
   *
   * @throws TypeError for any other transport.
   * @throws {VsockDeviceError} `ABORTED` after `close()`.
   */
  link(transport: MessagePort | Duplex): NetworkLink {
    if (this.#closing !== undefined) throw closedError('link')
    const link = new LinkDriver(this.#hub.trunks, this.#clock ?? unheldClock, transport)
    this.#links.add(link)
    void link.closed.then(() => this.#links.delete(link))
    return link
  }

  /** Whether a guest has this CID, here or beyond a link. */
  reaches(cid: number): boolean {
    return this.#hub.switch.get(cid) !== undefined
  }

  /** Closes every link and every device. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#shut()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #shut(): Promise<void> {
    for (const link of this.#links) link.close()
    await Promise.all([...this.#devices.values()].map((device) => device.close()))
  }
}

/** A network whose devices all listen. Where one does not, the others are closed again. */
export async function createVsockNetwork(options: VsockNetworkOptions = {}): Promise<VsockNetwork> {
  checkObject('options', options)
  const { devices = [], clock } = options
  if (!Array.isArray(devices)) wrongValue('devices', 'an array of options', devices)
  const network = new VsockNetwork({ clock })
  try {
    for (const device of devices) await network.add(device)
    return network
  } catch (error) {
    await network.close()
    throw error
  }
}

const closedError = (op: string) =>
  new VsockDeviceError({ code: 'ABORTED', op, subject: 'network', what: 'it is closed', next: 'Make a new one.' })
