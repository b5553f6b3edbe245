import { Chain } from './chain.js'
import { NEVER } from './credit.js'
import { type MuxerOptions, SHARED_BURST, VsockMuxer } from './muxer.js'
import { HOST_CID, LARGEST_PACKET, PACKET_HEADER_SIZE, type PacketHeader } from './packet.js'
import { PacketIo } from './packet-io.js'
import type { PolicyGate } from './policy.js'
import type { SwitchPort } from './switch/port.js'
import { VsockSwitch } from './switch/switch.js'
import { Tally } from './tally.js'
import type { Tap, TapListener } from './tap.js'
import type { Overdue, SplitRing } from './vring.js'

/** The queues of a virtio-vsock device (virtio 1.2, 5.10.2), as seen from the guest's driver. */
export const RX_RING = 0
export const TX_RING = 1
/** Carries events. This device has none to tell: the ring is accepted and left alone. */
export const EVENT_RING = 2
export const RING_COUNT = 3

/** The rings that may be worked on now. */
export interface Rings {
  readonly rx: SplitRing | undefined
  readonly tx: SplitRing | undefined
}

/**
 * How much one call of `process` does before other work gets its turn: bytes moved and descriptors visited. Chains are not
 * counted: a chain may hold a single byte or a thousand descriptors.
 */
export interface Budget {
  readonly bytes: number
  readonly descriptors: number
}

const DEFAULT_BUDGET: Budget = { bytes: 1 << 20, descriptors: 1024 }

/** For which rings the guest has to be interrupted. */
export interface Announcement {
  readonly rx: boolean
  readonly tx: boolean
  /** Transmit buffers were given back, and the driver was not told: call `settle` within some milliseconds. */
  readonly owed: boolean
}

/** What a look at the rings finds. */
export interface Look {
  /** The guest has yet to take what was published: interrupt it. */
  readonly rx: Overdue | undefined
  readonly tx: Overdue | undefined
}

/**
 * A driver waits for packets, and hardly ever for its used transmit buffers. An interrupt for these alone costs an emulated guest more
 * than the packet did, so it is put off until this part of the ring is used up: 1/4. (`Infinity`: never put off.)
 */
const UNANNOUNCED_PART = 4

export interface DeviceOptions extends MuxerOptions {
  /** The CIDs that mean the host; `any`: each CID without a guest. Default 2. */
  readonly hostCids?: readonly number[] | 'any' | undefined
}

export interface DeviceSurroundings {
  readonly budget?: Budget | undefined
  /** Called when the owner of a connection did something to it: `process` may have more to do. */
  readonly onTouch?: (() => void) | undefined
  /** Leads to the other guests. Default: to no other guest, but back to this one. */
  readonly port?: SwitchPort | undefined
  /** Sees the packets. Default: no tap. */
  readonly tap?: Tap | undefined
}

/**
 * The virtio-vsock device: moves packets between two rings, the connections with the host and those with other guests. A packet to one of the
 * host's CIDs is for the muxer, any other for the switch.
 */
export class VsockDevice {
  readonly muxer: VsockMuxer
  readonly port: SwitchPort
  readonly #guestCid: number
  readonly #hostCids: ReadonlySet<number>
  readonly #anyIsHost: boolean
  readonly #io = new PacketIo()
  readonly #chain = new Chain()
  /** Those that are filled together. */
  readonly #chains: Chain[] = []
  readonly #budget: Budget
  readonly #policy: PolicyGate | undefined
  readonly #tally: Tally
  readonly #tap: Tap | undefined
  /** Who sees the packets of this trip: asked for once, so that a packet costs one test. */
  #listener: TapListener | undefined
  #bytesLeft = 0
  #descriptorsLeft = 0
  /** Muxer and switch take turns when both have packets. */
  #switchIsNext = false

  constructor(options: DeviceOptions, { budget = DEFAULT_BUDGET, onTouch, port, tap }: DeviceSurroundings = {}) {
    const { guestCid, hostCids = [HOST_CID] } = options
    this.#guestCid = guestCid
    this.#hostCids = new Set(hostCids === 'any' ? [HOST_CID] : hostCids)
    this.#anyIsHost = hostCids === 'any'
    this.muxer = new VsockMuxer(options, onTouch)
    this.port = port ?? new VsockSwitch().join({ ...options, cid: guestCid, groups: [] })
    if (onTouch !== undefined) this.port.onTouch = onTouch
    this.#budget = budget
    this.#policy = options.policy
    this.#tally = options.tally ?? new Tally()
    this.#tap = tap
  }

  /** Whether another packet of the guest may be taken. */
  get accepting(): boolean {
    return this.muxer.accepting && this.port.accepting
  }

  /** Whether there is a packet for the guest. */
  get outgoing(): boolean {
    return this.muxer.outgoing || this.port.outgoing
  }

  /** Connections, with the host and with other guests; those still closing included. */
  get size(): number {
    return this.muxer.size + this.port.size
  }

  /** When `wake` wants to be called; `Infinity` for never. May be early. */
  get wakeAt(): number {
    return Math.min(this.muxer.wakeAt, this.port.wakeAt, this.#policy?.wakeAt ?? NEVER)
  }

  /** Lets every connection see the time. Being called early does nothing. */
  wake(now: number): void {
    this.muxer.wake(now)
    this.port.wake(now)
    this.#policy?.wake(now)
  }

  /** The guest's driver has gone: every connection ends without a packet to it, and nothing of the old guest is kept. Returns how many. */
  abandon(now: number): number {
    const count = this.size
    this.muxer.abandon()
    this.port.abandon(now)
    return count
  }

  /**
   * Does what there is to do on the rings that run, and shows the guest what was done. True if the budget ran out: call again soon. Throws
   * `DeviceError` if the guest broke a rule. The guest sees what was done before that all the same.
   */
  process(rx: SplitRing | undefined, tx: SplitRing | undefined, now: number): boolean {
    this.#bytesLeft = this.#budget.bytes
    this.#descriptorsLeft = this.#budget.descriptors
    this.#listener = this.#tap?.listener
    tx?.disableKicks()
    rx?.disableKicks()
    try {
      let more: boolean
      do {
        if (tx !== undefined) this.#transmit(tx, this.#deliverable(rx, now) ? 2 : Number.POSITIVE_INFINITY, now)
        if (rx !== undefined) this.#deliver(rx, now)
        more = this.#bytesLeft <= 0 || this.#descriptorsLeft <= 0
      } while (!more && this.#armed(rx, tx, now))
      return more
    } finally {
      rx?.publish()
      tx?.publish()
    }
  }

  /** To be called after `process`: whether the guest wants to hear of what was done. */
  announce(rx: SplitRing | undefined, tx: SplitRing | undefined): Announcement {
    const full = tx !== undefined && tx.unannounced >= tx.size / UNANNOUNCED_PART
    return {
      rx: rx?.interruptDue() ?? false,
      tx: full && tx.interruptDue(),
      owed: tx !== undefined && tx.unannounced > 0,
    }
  }

  /** The interrupt that was put off. False if the guest has looked meanwhile, as it does when packets come. */
  settle(tx: SplitRing | undefined): boolean {
    return tx?.interruptDue() ?? false
  }

  /**
   * To be called for rings on which nothing was published for a while: what the guest was not told, or did not hear. An interrupt and a kick
   * are both lost if one side looks at the other's wish before it can be seen, and then both wait for ever.
   */
  look(rx: SplitRing | undefined, tx: SplitRing | undefined): Look {
    return { rx: rx?.overdue(), tx: tx?.overdue() }
  }

  /**
   * To be called when `process` was not called for a while: a ring into which the guest has put something that `process` would work on.
   * Unless its kick is on its way, call `process`.
   */
  unkicked(rx: SplitRing | undefined, tx: SplitRing | undefined, now: number): typeof RX_RING | typeof TX_RING | undefined {
    if (tx !== undefined && this.#takes(now) && tx.pending > 0) return TX_RING
    return this.#deliverable(rx, now) ? RX_RING : undefined
  }

  /** Asks for kicks where we wait for the guest. True if the guest was faster and there is work already. */
  #armed(rx: SplitRing | undefined, tx: SplitRing | undefined, now: number): boolean {
    if (tx !== undefined && this.#takes(now) && tx.enableKicks()) return true
    return rx !== undefined && this.#gives(now) && rx.enableKicks()
  }

  #deliverable(rx: SplitRing | undefined, now: number): boolean {
    return rx !== undefined && this.#gives(now) && rx.pending > 0
  }

  /** `accepting`, and the guest's rate lets it. */
  #takes(now: number): boolean {
    return this.accepting && this.#policy?.isOpen('fromGuest', now) !== false
  }

  /** `outgoing`, and the guest's rate lets it. */
  #gives(now: number): boolean {
    return this.outgoing && this.#policy?.isOpen('toGuest', now) !== false
  }

  /** Leaves 1/`reserve` of the budget alone. */
  #transmit(tx: SplitRing, reserve: number, now: number): void {
    const chain = this.#chain
    const bytes = this.#budget.bytes / reserve
    const descriptors = this.#budget.descriptors / reserve
    while (this.#bytesLeft > bytes && this.#descriptorsLeft > descriptors && this.#takes(now) && tx.pop(chain)) {
      const taken = this.#receive(chain, now)
      this.#moved('fromGuest', taken, now)
      this.#bytesLeft -= taken
      this.#descriptorsLeft -= chain.descriptors
      tx.push(chain.head, 0)
    }
  }

  #deliver(rx: SplitRing, now: number): void {
    const chain = this.#chain
    while (this.#bytesLeft > 0 && this.#descriptorsLeft > 0 && this.#gives(now)) {
      const burst = this.#burst
      if (burst > 0) {
        if (!this.#deliverBurst(rx, burst, now)) return
        continue
      }
      if (!rx.pop(chain)) return
      const written = this.#fill(chain, now)
      if (this.#listener !== undefined) tapped(this.#listener, chain, written)
      this.#moved('toGuest', written, now)
      rx.push(chain.head, written)
      this.#descriptorsLeft -= chain.descriptors
      this.#bytesLeft -= written
    }
  }

  /** @param length - Header and payload. */
  #moved(direction: 'fromGuest' | 'toGuest', length: number, now: number): void {
    this.#policy?.moved(direction, length, now)
    this.#tally.moved(direction, length - PACKET_HEADER_SIZE)
  }

  /** How many chains may be filled together. */
  get #burst(): number {
    if (!this.muxer.outgoing) return 0
    if (!this.port.outgoing) return this.muxer.burst
    return this.#switchIsNext ? 0 : Math.min(this.muxer.burst, SHARED_BURST)
  }

  /** Packets whose bytes come straight from a port, as many as there are chains and bytes for; false: the ring has no chain. */
  #deliverBurst(rx: SplitRing, burst: number, now: number): boolean {
    const chains = this.#chains
    let popped = 0
    let used = 0
    try {
      for (let descriptors = 0; popped < burst && descriptors < this.#descriptorsLeft; popped++) {
        chains[popped] ??= new Chain()
        if (!rx.pop(chains[popped]!)) break
        descriptors += chains[popped]!.descriptors
      }
      if (popped === 0) return false
      used = this.muxer.fillAhead(this.#io, chains, popped, now)
    } finally {
      rx.unpop(popped - used)
    }
    this.#switchIsNext = this.port.outgoing
    for (let i = 0; i < used; i++) {
      const { head, filled, descriptors } = chains[i]!
      const written = PACKET_HEADER_SIZE + filled
      if (this.#listener !== undefined) tapped(this.#listener, chains[i]!, written)
      rx.push(head, written)
      this.#moved('toGuest', written, now)
      this.#descriptorsLeft -= descriptors
      this.#bytesLeft -= written
    }
    return true
  }

  /** Takes one packet of the guest and returns its length. */
  #receive(chain: Chain, now: number): number {
    const header = this.#io.read(chain)
    const { sourceCid, destinationCid } = header
    if (this.#listener !== undefined) {
      const payload = chain.ahead(Math.min(header.length, LARGEST_PACKET))
      this.#listener('from-guest', this.#io.headerBytes(), payload)
    }
    // A guest sends as itself. A CID of more than 32 bits cannot even be answered.
    if (sourceCid === this.#guestCid && Number.isFinite(destinationCid)) {
      if (this.#isHost(header)) this.muxer.receive(header, chain, now)
      else this.port.receive(header, chain, now)
    } else {
      this.#tally.dropped++
    }
    return PACKET_HEADER_SIZE + header.length
  }

  /** Where any CID may be the host's, a guest may come that has the CID of connections with the host: they stay the host's. */
  #isHost(header: Readonly<PacketHeader>): boolean {
    const { destinationCid: cid } = header
    if (this.#hostCids.has(cid)) return true
    return this.#anyIsHost && cid !== this.#guestCid && (!this.port.knows(cid) || this.muxer.has(header))
  }

  /** Puts the next packet into `chain` and returns its length. */
  #fill(chain: Chain, now: number): number {
    const room = this.#io.room(chain)
    const both = this.muxer.outgoing && this.port.outgoing
    const fromSwitch = both ? this.#switchIsNext : this.port.outgoing
    this.#switchIsNext = both && !this.#switchIsNext
    return PACKET_HEADER_SIZE + (fromSwitch ? this.port : this.muxer).fill(this.#io, chain, room, now)
  }
}

/** Shows a packet that was put into the first `length` bytes of `chain`. The guest has yet to be told of it. */
function tapped(listener: TapListener, chain: Chain, length: number): void {
  const bytes = chain.written(length)
  listener('to-guest', bytes.slice(0, PACKET_HEADER_SIZE), bytes.subarray(PACKET_HEADER_SIZE))
}
