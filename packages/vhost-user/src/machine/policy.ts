import { type Rate, TokenBucket } from './token-bucket.js'

/**
 * Whom a rule is about: every peer, the host, every guest of a group, or the owner of one CID (a sibling's, or a CID that means the host).
 */
export type RulePeer = 'any' | 'host' | number | { readonly group: string }

/** Ports from the first to the last, both included. */
export type PortRange = readonly [from: number, to: number]

/** Allows connections between the guest and a peer, to some ports. */
export interface Rule {
  readonly peer: RulePeer
  readonly ports: readonly PortRange[]
}

/** What is allowed in one direction. What is undefined has no limit. */
export interface Limits {
  /** Connections that no rule allows are refused. */
  readonly allow: readonly Rule[] | undefined
  /** Connections at once that were begun in this direction. */
  readonly maxConnections: number | undefined
  /** New connections. */
  readonly connectionRate: Rate | undefined
  /** Bytes of packets, headers included, of the connections of both directions. */
  readonly byteRate: Rate | undefined
}

/** `fromGuest`: connections that the guest begins, and bytes that it sends. `toGuest`: those that come to it. */
export type Direction = 'fromGuest' | 'toGuest'

/** The limits of one guest. */
export type Policy = Readonly<Record<Direction, Limits>>

/** The other end of a connection that is asked for. */
export interface Peer {
  readonly isHost: boolean
  /** The sibling's CID, or the CID that the guest has dialled to reach the host. */
  readonly cid: number
  /** The sibling's groups; none for the host. */
  readonly groups: ReadonlySet<string>
}

/**
 * Why a connection is refused: no rule allows it, as many as may be are open in this direction, or too many were begun lately.
 */
export type PolicyRefusal = 'policy-port' | 'policy-connections' | 'policy-rate'

const NONE: Limits = { allow: undefined, maxConnections: undefined, connectionRate: undefined, byteRate: undefined }

/** Everything is allowed. */
export const NO_POLICY: Policy = { fromGuest: NONE, toGuest: NONE }

/**
 * Holds one guest to its policy. Connections are judged once, when they begin: what is open stays open. Bytes are never refused, they
 * wait: while a direction is not `isOpen`, nothing of it is worked on, and `wakeAt` says when to look again.
 */
export class PolicyGate {
  readonly #ways: Readonly<Record<Direction, Way>>
  #policy: Policy

  constructor(policy: Policy, now: number) {
    this.#policy = policy
    this.#ways = { fromGuest: new Way(policy.fromGuest, now), toGuest: new Way(policy.toGuest, now) }
  }

  get policy(): Policy {
    return this.#policy
  }

  /** Other limits from now on. Connections that are open stay, and are counted. */
  replace(policy: Policy, now: number): void {
    this.#policy = policy
    this.#ways.fromGuest.replace(policy.fromGuest, now)
    this.#ways.toGuest.replace(policy.toGuest, now)
  }

  /** Why a connection to this port may not begin; undefined if it may. Nothing is counted yet: another guest may have a say, too. */
  refusal(direction: Direction, peer: Peer, port: number, now: number): PolicyRefusal | undefined {
    return this.#ways[direction].refusal(peer, port, now)
  }

  /** A connection begins. It is counted until `end`. */
  begin(direction: Direction, now: number): void {
    this.#ways[direction].begin(now)
  }

  /** A connection that was counted is gone. */
  end(direction: Direction): void {
    this.#ways[direction].connections--
  }

  /** Connections that are open now, by who began them. */
  connections(direction: Direction): number {
    return this.#ways[direction].connections
  }

  /** Whether packets may move in this direction now. */
  isOpen(direction: Direction, now: number): boolean {
    return this.#ways[direction].opensAt <= now
  }

  /** A packet has moved. */
  moved(direction: Direction, bytes: number, now: number): void {
    this.#ways[direction].moved(bytes, now)
  }

  /** When `wake` wants to be called, because a direction opens again; `Infinity` for never. */
  get wakeAt(): number {
    return Math.min(this.#ways.fromGuest.wakeAt, this.#ways.toGuest.wakeAt)
  }

  /** The directions that are open by now have nothing more to wait for. Being called early does nothing. */
  wake(now: number): void {
    this.#ways.fromGuest.wake(now)
    this.#ways.toGuest.wake(now)
  }
}

/** The limits of one direction, and what counts against them. */
class Way {
  connections = 0
  /** Infinite if nothing is waited for. */
  wakeAt = Number.POSITIVE_INFINITY
  #limits: Limits
  #begun: TokenBucket | undefined
  #bytes: TokenBucket | undefined

  constructor(limits: Limits, now: number) {
    this.#limits = limits
    this.#begun = changed(undefined, limits.connectionRate, now)
    this.#bytes = changed(undefined, limits.byteRate, now)
  }

  replace(limits: Limits, now: number): void {
    this.#limits = limits
    this.#begun = changed(this.#begun, limits.connectionRate, now)
    this.#bytes = changed(this.#bytes, limits.byteRate, now)
    // What waits may go on at once, or has another time to wait for.
    this.wakeAt = this.wakeAt === Number.POSITIVE_INFINITY ? this.wakeAt : Math.max(now, this.opensAt)
  }

  refusal(peer: Peer, port: number, now: number): PolicyRefusal | undefined {
    const { allow, maxConnections } = this.#limits
    if (allow !== undefined && !allow.some((rule) => allows(rule, peer, port))) return 'policy-port'
    if (maxConnections !== undefined && this.connections >= maxConnections) return 'policy-connections'
    return this.#begun?.has(now) === false ? 'policy-rate' : undefined
  }

  begin(now: number): void {
    this.connections++
    this.#begun?.take(1, now)
  }

  get opensAt(): number {
    return this.#bytes?.opensAt ?? Number.NEGATIVE_INFINITY
  }

  moved(bytes: number, now: number): void {
    if (this.#bytes === undefined) return
    this.#bytes.take(bytes, now)
    this.wakeAt = this.opensAt > now ? this.opensAt : Number.POSITIVE_INFINITY
  }

  wake(now: number): void {
    if (this.wakeAt <= now) this.wakeAt = Number.POSITIVE_INFINITY
  }
}

/** The bucket for a rate: what there is stays. */
function changed(bucket: TokenBucket | undefined, rate: Rate | undefined, now: number): TokenBucket | undefined {
  if (rate === undefined) return undefined
  if (bucket === undefined) return new TokenBucket(rate, now)
  bucket.change(rate, now)
  return bucket
}

function allows({ peer: wanted, ports }: Rule, peer: Peer, port: number): boolean {
  return isAbout(wanted, peer) && ports.some(([from, to]) => port >= from && port <= to)
}

function isAbout(wanted: RulePeer, { isHost, cid, groups }: Peer): boolean {
  if (wanted === 'any') return true
  if (wanted === 'host') return isHost
  return typeof wanted === 'number' ? wanted === cid : groups.has(wanted.group)
}
