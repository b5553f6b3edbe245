import type { TrunkLink } from '../src/machine/trunk/link.js'
import { Trunks } from '../src/machine/trunk/trunks.js'
import type { FakeNetwork } from './fake-network.js'

/** Joins the switches of a fake network by links, in virtual time. Links carry bytes in pieces of any length. */
export class FakeTrunks {
  readonly trunks: Trunks[]
  readonly lines: FakeLine[] = []
  readonly conflicts: number[] = []
  readonly #network: FakeNetwork
  readonly #random: () => number

  constructor(network: FakeNetwork, random: () => number) {
    this.#network = network
    this.#random = random
    this.trunks = network.switches.map(
      (hub, i) =>
        new Trunks({
          switch: hub,
          name: `network ${i}`,
          ports: { handshakeMs: 2_000, lingerMs: 8_000, allocate: (size) => new Uint8Array(size) },
          onConflict: (cid) => this.conflicts.push(cid),
          now: () => network.now,
        }),
    )
    network.onJoin = ({ cid, switch: on }, groups) => this.trunks[network.switches.indexOf(on)]!.setLocal(cid, groups)
    network.onLeave = ({ cid, switch: on }) => this.trunks[network.switches.indexOf(on)]!.removeLocal(cid)
  }

  link(one: number, other: number, window?: number): FakeLine {
    const line = new FakeLine(this.trunks[one]!, this.trunks[other]!, this.#random, window)
    this.lines.push(line)
    this.#network.extras.push(line)
    return line
  }
}

/** Two ends of a link and the bytes between them. */
export class FakeLine {
  readonly ends: readonly [TrunkLink, TrunkLink]
  /** Nothing gets through for now. */
  stuck = false
  /** The most bytes that were ever between the ends, one way. */
  most = 0
  readonly #touched = [true, true]
  readonly #way: [Uint8Array[], Uint8Array[]] = [[], []]
  readonly #random: () => number

  constructor(one: Trunks, other: Trunks, random: () => number, window?: number) {
    this.#random = random
    const touch = (which: 0 | 1) => () => {
      this.#touched[which] = true
    }
    this.ends = [one.link(touch(0), window), other.link(touch(1), window)]
  }

  step(now: number): boolean {
    const moved = [this.#send(0, now), this.#send(1, now)].includes(true)
    if (this.stuck) return moved
    const delivered = [this.#deliver(0, now), this.#deliver(1, now)]
    return moved || delivered.includes(true)
  }

  get wakeAt(): number {
    return Math.min(this.ends[0].wakeAt, this.ends[1].wakeAt)
  }

  wake(now: number): void {
    for (const which of [0, 1] as const) {
      if (now < this.ends[which].wakeAt) continue
      this.ends[which].wake(now)
      this.#touched[which] = true
    }
  }

  /** The transport fails: what is on its way is lost. */
  cut(now: number): void {
    this.#way[0] = []
    this.#way[1] = []
    for (const end of this.ends) end.close({ reason: 'lost', what: 'it was cut' }, now)
  }

  #send(from: 0 | 1, now: number): boolean {
    if (!this.#touched[from]) return false
    this.#touched[from] = false
    for (let bytes = this.ends[from].next(now); bytes !== undefined; bytes = this.ends[from].next(now))
      this.#way[from].push(bytes)
    this.most = Math.max(
      this.most,
      this.#way[from].reduce((sum, { length }) => sum + length, 0),
    )
    return true
  }

  /** Delivers all that is under way, or leaves some of the last piece. */
  #deliver(from: 0 | 1, now: number): boolean {
    const pieces = this.#way[from].splice(0)
    for (const [i, bytes] of pieces.entries()) {
      // As a stream would: in other pieces than they were sent.
      const cut = this.#random() < 0.5 ? bytes.length : Math.floor(this.#random() * bytes.length)
      const isLast = i === pieces.length - 1
      this.ends[1 - from]!.receive(bytes.slice(0, cut), now)
      if (!isLast) this.ends[1 - from]!.receive(bytes.slice(cut), now)
      else if (cut < bytes.length) this.#way[from].unshift(bytes.subarray(cut))
    }
    return pieces.length > 0
  }
}
