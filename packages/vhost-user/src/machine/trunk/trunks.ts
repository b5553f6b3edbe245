import type { PortOptions } from '../switch/port.js'
import type { VsockSwitch } from '../switch/switch.js'
import type { Guest } from './frame.js'
import { type LinkOwner, TrunkLink } from './link.js'

export interface TrunksOptions {
  readonly switch: VsockSwitch
  /** No other network has this name. */
  readonly name: string
  readonly ports: Omit<PortOptions, 'maxConnections' | 'policy'>
  /** A guest of another network can be reached, or no longer. */
  readonly onReach?: ((cid: number, isReachable: boolean) => void) | undefined
  /** A second network has a guest with this CID. It is not reachable there as long as the first has its own. */
  readonly onConflict?: ((cid: number) => void) | undefined
  readonly now: () => number
}

/** Where a guest is reached. */
interface Home {
  readonly guest: Guest
  /** Undefined: its device is here. */
  readonly via: TrunkLink | undefined
}

/**
 * All links of one network, and which guest is reached over which of them. Networks form a tree, a star for instance: each tells its peers of its
 * own guests and of those that it has learned of over other links. A CID has one home: where it was first.
 */
export class Trunks implements LinkOwner {
  readonly #options: TrunksOptions
  /** With the guests that each peer has told of, by CID. */
  readonly #links = new Map<TrunkLink, Map<number, Guest>>()
  readonly #homes = new Map<number, Home>()

  constructor(options: TrunksOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#links.size
  }

  /** A link, of which this is one end. */
  link(onTouch: () => void, window?: number): TrunkLink {
    const { switch: hub, ports } = this.#options
    const link = new TrunkLink({
      switch: hub,
      owner: this,
      // The guest's own network holds it to what it may begin.
      ports: { ...ports, maxConnections: Number.POSITIVE_INFINITY },
      onTouch,
      window,
    })
    this.#links.set(link, new Map())
    return link
  }

  /** A guest whose device is here, or whose groups are others now. */
  setLocal(cid: number, groups: Iterable<string>): void {
    this.#settle({ guest: { cid, origin: this.#options.name, groups: [...groups] }, via: undefined })
  }

  removeLocal(cid: number): void {
    const home = this.#homes.get(cid)
    if (home !== undefined && home.via === undefined) this.#unsettle(home)
  }

  opened(link: TrunkLink): void {
    for (const { guest, via } of this.#homes.values()) if (via !== link) link.announce(guest)
  }

  guest(link: TrunkLink, guest: Guest): void {
    const { name, now, onConflict } = this.#options
    const home = this.#homes.get(guest.cid)
    const isElsewhere = home !== undefined && home.via !== link
    if (guest.origin === name || (isElsewhere && home.guest.origin === guest.origin)) {
      link.close({ reason: 'loop', what: `guest ${guest.cid} is reached without it, too` }, now())
      return
    }
    this.#links.get(link)?.set(guest.cid, guest)
    if (isElsewhere) onConflict?.(guest.cid)
    else this.#settle({ guest, via: link })
  }

  gone(link: TrunkLink, cid: number): void {
    this.#links.get(link)?.delete(cid)
    const home = this.#homes.get(cid)
    if (home?.via === link) this.#unsettle(home)
  }

  parted(link: TrunkLink): void {
    this.#links.delete(link)
    for (const home of [...this.#homes.values()]) if (home.via === link) this.#unsettle(home)
  }

  #settle(home: Home): void {
    const { guest, via } = home
    const isNew = !this.#homes.has(guest.cid)
    this.#homes.set(guest.cid, home)
    const member = this.#options.switch.get(guest.cid)
    if (via !== undefined) {
      if (isNew) via.adopt(guest)
      else if (member !== undefined) member.groups = new Set(guest.groups)
    }
    for (const link of this.#links.keys()) if (link !== via) link.announce(guest)
    if (isNew && via !== undefined) this.#options.onReach?.(guest.cid, true)
  }

  #unsettle({ guest: { cid }, via }: Home): void {
    this.#homes.delete(cid)
    via?.abandon(cid, this.#options.now())
    for (const link of this.#links.keys()) if (link !== via) link.withdraw(cid)
    if (via !== undefined) this.#options.onReach?.(cid, false)
    // Another network may have had a guest with this CID all along.
    for (const [link, guests] of this.#links) {
      const guest = guests.get(cid)
      if (guest === undefined || link === via) continue
      this.#settle({ guest, via: link })
      return
    }
  }
}
