import { Chain } from './chain.js'
import { type MuxerOptions, VsockMuxer } from './muxer.js'
import { PACKET_HEADER_SIZE } from './packet.js'
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

/** The virtio-vsock device: moves packets between two rings and the connections. */
export class VsockDevice {
  readonly muxer: VsockMuxer
  readonly #chain = new Chain()
  /** Those that are filled together. */
  readonly #chains: Chain[] = []
  readonly #budget: Budget
  #bytesLeft = 0
  #descriptorsLeft = 0

  /** @param onTouch called when the owner of a connection did something to it: `process` may have more to do. */
  constructor(options: MuxerOptions, { budget = DEFAULT_BUDGET, onTouch }: { budget?: Budget; onTouch?: () => void } = {}) {
    this.muxer = new VsockMuxer(options, onTouch)
    this.#budget = budget
  }

  /**
   * Does what there is to do on the rings that run, and shows the guest what was done. True if the budget ran out: call again soon. Throws
   * `DeviceError` if the guest broke a rule. The guest sees what was done before that all the same.
   */
  process(rx: SplitRing | undefined, tx: SplitRing | undefined, now: number): boolean {
    this.#bytesLeft = this.#budget.bytes
    this.#descriptorsLeft = this.#budget.descriptors
    tx?.disableKicks()
    rx?.disableKicks()
    try {
      let more: boolean
      do {
        if (tx !== undefined) this.#transmit(tx, this.#deliverable(rx) ? 2 : Number.POSITIVE_INFINITY, now)
        if (rx !== undefined) this.#deliver(rx, now)
        more = this.#bytesLeft <= 0 || this.#descriptorsLeft <= 0
      } while (!more && this.#armed(rx, tx))
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
  unkicked(rx: SplitRing | undefined, tx: SplitRing | undefined): typeof RX_RING | typeof TX_RING | undefined {
    if (tx !== undefined && this.muxer.accepting && tx.pending > 0) return TX_RING
    return this.#deliverable(rx) ? RX_RING : undefined
  }

  /** Asks for kicks where we wait for the guest. True if the guest was faster and there is work already. */
  #armed(rx: SplitRing | undefined, tx: SplitRing | undefined): boolean {
    if (tx !== undefined && this.muxer.accepting && tx.enableKicks()) return true
    return rx !== undefined && this.muxer.outgoing && rx.enableKicks()
  }

  #deliverable(rx: SplitRing | undefined): boolean {
    return rx !== undefined && this.muxer.outgoing && rx.pending > 0
  }

  /** Leaves 1/`reserve` of the budget alone. */
  #transmit(tx: SplitRing, reserve: number, now: number): void {
    const chain = this.#chain
    const bytes = this.#budget.bytes / reserve
    const descriptors = this.#budget.descriptors / reserve
    while (this.#bytesLeft > bytes && this.#descriptorsLeft > descriptors && this.muxer.accepting && tx.pop(chain)) {
      this.#bytesLeft -= this.muxer.receive(chain, now)
      this.#descriptorsLeft -= chain.descriptors
      tx.push(chain.head, 0)
    }
  }

  #deliver(rx: SplitRing, now: number): void {
    const chain = this.#chain
    while (this.#bytesLeft > 0 && this.#descriptorsLeft > 0 && this.muxer.outgoing) {
      const { burst } = this.muxer
      if (burst > 0) {
        if (!this.#deliverBurst(rx, burst)) return
        continue
      }
      if (!rx.pop(chain)) return
      const written = this.muxer.fill(chain, now)
      rx.push(chain.head, written)
      this.#descriptorsLeft -= chain.descriptors
      this.#bytesLeft -= written
    }
  }

  /** Packets whose bytes come straight from a port, as many as there are chains and bytes for; false: the ring has no chain. */
  #deliverBurst(rx: SplitRing, burst: number): boolean {
    const chains = this.#chains
    let popped = 0
    let used = 0
    try {
      for (; popped < burst; popped++) {
        chains[popped] ??= new Chain()
        if (!rx.pop(chains[popped]!)) break
      }
      if (popped === 0) return false
      used = this.muxer.fillDirect(chains, popped)
    } finally {
      rx.unpop(popped - used)
    }
    for (let i = 0; i < used; i++) {
      const { head, filled, descriptors } = chains[i]!
      rx.push(head, PACKET_HEADER_SIZE + filled)
      this.#descriptorsLeft -= descriptors
      this.#bytesLeft -= PACKET_HEADER_SIZE + filled
    }
    return true
  }
}
