import { transition } from '@upcall/foundation/machine'
import type { Allocate } from '../blocks.js'
import type { Chain } from '../chain.js'
import { NEVER } from '../credit.js'
import { OrphanResets } from '../orphan-resets.js'
import { LARGEST_PACKET, Op, type PacketHeader, SHUTDOWN_RECEIVE, TYPE_SEQPACKET, TYPE_STREAM } from '../packet.js'
import type { PacketIo } from '../packet-io.js'
import type { Direction, PolicyGate } from '../policy.js'
import type { Tally } from '../tally.js'
import { Allowance } from './allowance.js'
import { SwitchEnd } from './end.js'
import { EndTable } from './end-table.js'
import { FairLine } from './fair-line.js'
import { packetCost } from './packet-queue.js'
import { otherSide, type PassageContext, type PassageEvent, type PassageState, passageTable, type Side } from './passage.js'
import type { Routes } from './routes.js'

export interface PortOptions {
  /** Connections at a time that the guest has begun with other guests, as long as either of them has yet to hear of the end. */
  readonly maxConnections: number
  readonly handshakeMs: number
  /** How long the last bytes of a connection may wait for a guest that takes nothing. */
  readonly lingerMs: number
  readonly allocate: Allocate
  /** Told of each connection that begins and of each that is gone. Whether it may begin is for the switch's `admit`. */
  readonly policy?: PolicyGate | undefined
  /** Counts the connections, for the owner of the device. */
  readonly tally?: Tally | undefined
}

/** Below that, a buffer of its own costs no more than a piece of a larger one. */
const SMALL = 4096

/** An end at a port. */
type PortEnd = SwitchEnd<SwitchPort>

/** A connection between two guests: both ends and its life. */
interface Passage {
  state: PassageState
  /** Ends that are in their ports' tables. */
  present: number
  readonly ends: Readonly<Record<Side, PortEnd>>
}

/**
 * Where a guest is connected to the switch: takes its packets for other guests, and has theirs for it. A packet goes on at once: the
 * port of its receiver holds it until that has a buffer and credit for it. So credit is the guests' own, end to end.
 *
 * Everything that a guest can make grow has a bound, and it alone is held to it: the connections that it begins, the resets owed to it, and
 * its packets that others have yet to take (`Allowance`).
 */
export class SwitchPort {
  /** Called when another guest has done something: there may be packets for this one, or packets may be taken from it again. */
  onTouch: () => void = () => {}
  /** Told of each change of what other guests have yet to take of this one's packets: by how much, and which guest. */
  onHeld: (cid: number, change: number) => void = () => {}
  readonly #switch: Routes<SwitchPort>
  readonly #options: PortOptions
  readonly #ends = new EndTable<PortEnd>()
  readonly #passages = new WeakMap<PortEnd, Passage>()
  /** Ends of other guests that have bytes of this one yet to take, though its own end is gone. */
  readonly #left = new Set<PortEnd>()
  readonly #ready = new FairLine<PortEnd>()
  readonly #orphans = new OrphanResets()
  readonly #turn: PassageContext = { now: 0, effects: [] }
  readonly #allowance = new Allowance()
  #begun = 0
  #wakeAt = NEVER

  constructor(of: Routes<SwitchPort>, options: PortOptions) {
    this.#switch = of
    this.#options = options
  }

  /** Connections with other guests; one of a guest with itself counts twice. */
  get size(): number {
    return this.#ends.size
  }

  /** What other guests have yet to take of this one's packets, in bytes with the bookkeeping. */
  get held(): number {
    return this.#allowance.held
  }

  /** Whether the switch has a guest with this CID. */
  knows(cid: number): boolean {
    return this.#switch.get(cid) !== undefined
  }

  // ── packets of this guest ──────────────────────────────────────────────────────────────────────────────────────────────

  /** Whether another packet may be taken. */
  get accepting(): boolean {
    return !this.#allowance.full && !this.#orphans.full
  }

  /** Takes one packet, whose sender is one of this port's guests. `chain` stands at its payload. */
  receive(header: Readonly<PacketHeader>, chain: Chain, now: number): void {
    const { sourceCid, sourcePort, destinationCid, destinationPort, op } = header
    const end = this.#ends.get(sourceCid, sourcePort, destinationCid, destinationPort)
    if (end === undefined) {
      if (op === Op.REQUEST) this.#request(header, now)
      else this.#orphans.owe(header)
      return
    }
    if (header.type !== end.type) {
      this.#orphans.owe(header)
      return
    }
    end.hear(header)
    const passage = this.#passages.get(end)!
    const peer = peerOf(passage, end)
    if (this.#step(passage, eventOf(header, end, peer), now)) {
      this.#forward(header, chain, passage, peer, now)
      if (op === Op.SHUTDOWN && (header.flags & SHUTDOWN_RECEIVE) !== 0) peer.port.release(end.cid, end.deafen())
      peer.port.#follow(peer)
      peer.port.onTouch()
    }
    // Also when the connection is over: the last bytes before a RST may have waited for this credit.
    this.#follow(end)
  }

  #request(header: Readonly<PacketHeader>, now: number): void {
    const { sourceCid: cid, sourcePort, destinationCid: peerCid, destinationPort, type } = header
    if (type !== TYPE_STREAM && type !== TYPE_SEQPACKET) {
      this.#orphans.owe(header)
      return
    }
    const route = this.#switch.route(header, now)
    const to = typeof route === 'string' ? undefined : route
    const calls = { cid, guestPort: sourcePort, peerCid, hostPort: destinationPort }
    const called = { cid: peerCid, guestPort: destinationPort, peerCid: cid, hostPort: sourcePort }
    const reason = to === undefined ? (route as string) : this.#obstacle(to, called)
    if (to === undefined || reason !== undefined) {
      this.#switch.refused(header, reason!)
      this.#orphans.owe(header)
      return
    }
    const caller = new SwitchEnd(this, 'caller', type, calls, header)
    const callee = new SwitchEnd(to, 'callee', type, called, undefined)
    const passage: Passage = {
      state: { kind: 'requested', until: now + this.#options.handshakeMs },
      present: 2,
      ends: { caller, callee },
    }
    this.#begun++
    this.#enter(caller, passage, now)
    to.#enter(callee, passage, now)
    callee.say(Op.REQUEST)
    this.#follow(caller)
    to.#follow(callee)
    to.onTouch()
  }

  /** Why there is no room for a connection to a guest that may be reached. */
  #obstacle(to: SwitchPort, { cid, guestPort, peerCid, hostPort }: Called): 'full' | 'busy' | undefined {
    if (this.#begun >= this.#options.maxConnections) return 'full'
    const isItself = to === this && cid === peerCid && guestPort === hostPort
    return isItself || to.#ends.get(cid, guestPort, peerCid, hostPort) !== undefined ? 'busy' : undefined
  }

  #enter(end: PortEnd, passage: Passage, now: number): void {
    this.#ends.add(end)
    this.#options.policy?.begin(directionOf(end), now)
    this.#options.tally?.begun(directionOf(end))
    this.#passages.set(end, passage)
    if (passage.state.kind === 'requested') this.#wakeBefore(passage.state.until)
  }

  #forward({ op, length, flags }: Readonly<PacketHeader>, chain: Chain, passage: Passage, peer: PortEnd, now: number): void {
    if (op === Op.SHUTDOWN) peer.sayShutdown(flags)
    else if (op !== Op.RW) peer.say(op)
    else if (length > 0 && !peer.deaf) {
      if (!this.#allowance.permits(peer.cid, packetCost(length), now)) {
        this.#giveUp(passage, peer, now)
        return
      }
      // A small buffer would come out of a pool, and hold all of it.
      const payload = length < SMALL ? new Uint8Array(length) : this.#options.allocate(length)
      chain.read(payload, 0, length)
      this.hold(peer.cid, peer.push(payload, flags), now)
    }
  }

  /** That guest has yet to take so much of what this one sent. */
  hold(cid: number, cost: number, now: number): void {
    this.#allowance.charge(cid, cost, now)
    this.#wakeBefore(this.#allowance.checkAt)
    this.onHeld(cid, cost)
  }

  /** That guest has taken so much of what this one sent. */
  release(cid: number, freed: number): void {
    if (freed === 0) return
    const goesOn = this.#allowance.release(cid, freed)
    this.onHeld(cid, -freed)
    if (goesOn) this.onTouch()
  }

  // ── packets for this guest ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Whether `fill` has a packet. */
  get outgoing(): boolean {
    return this.#ready.size > 0 || this.#orphans.size > 0
  }

  /** Puts the next packet into `chain`, which has `room` for payload, and returns the payload's length. Only to be called while `outgoing`. */
  fill(io: PacketIo, chain: Chain, room: number, now: number): number {
    const { header } = io
    if (this.#orphans.take(header)) {
      io.write(chain)
      return 0
    }
    const end = this.#ready.first!
    const peer = peerOf(this.#passages.get(end)!, end)
    const length = end.next(header, room, now)
    peer.tell(header)
    io.write(chain)
    if (length > 0) peer.port.release(end.cid, end.moveBytes(chain, length))
    this.#follow(end)
    this.#ready.turn(end)
    return length
  }

  // ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** When `wake` wants to be called; `Infinity` for never. May be early. */
  get wakeAt(): number {
    return this.#wakeAt
  }

  /** Lets every connection see the time. Being called early does nothing. */
  wake(now: number): void {
    if (now < this.#wakeAt) return
    this.#wakeAt = NEVER
    this.#endStalls(now)
    for (const end of this.#ends.all()) {
      const passage = this.#passages.get(end)!
      this.#step(passage, { type: 'wake' }, now)
      peerOf(passage, end).port.release(end.cid, end.wake(now))
      if (passage.state.kind === 'requested') this.#wakeBefore(passage.state.until)
      this.#follow(end)
    }
  }

  /** Where other guests hold this one up, its connections with them are given up, as far as anything waits in them. */
  #endStalls(now: number): void {
    const slow = this.#allowance.check(now)
    this.#wakeBefore(this.#allowance.checkAt)
    if (slow.length === 0) return
    const receivers = [...this.#ends.all().map((end) => peerOf(this.#passages.get(end)!, end)), ...this.#left]
    for (const receiver of receivers) {
      if (receiver.queue.length === 0 || !slow.includes(receiver.cid)) continue
      this.#giveUp(receiver.port.#passages.get(receiver)!, receiver, now)
    }
  }

  #giveUp(passage: Passage, receiver: PortEnd, now: number): void {
    this.#step(passage, { type: 'stalled' }, now)
    this.release(receiver.cid, receiver.deafen())
    receiver.port.#follow(receiver)
    receiver.port.onTouch()
  }

  /** The guest's driver has gone: the other guests get resets, and nothing of the old guest is kept. */
  abandon(now: number): void {
    for (const end of this.#ends.all()) {
      this.#step(this.#passages.get(end)!, { type: 'gone', side: end.side }, now)
    }
    this.#orphans.clear()
  }

  // ── what comes of it ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** True if the packet goes on to the other guest. */
  #step(passage: Passage, event: PassageEvent, now: number): boolean {
    const turn = this.#turn
    turn.now = now
    passage.state = transition(passageTable, turn, passage.state, event)
    let forward = false
    for (const effect of turn.effects.splice(0)) {
      if (effect.type === 'forward') forward = true
      else this.#conclude(passage, effect.side, effect.type, now)
    }
    return forward
  }

  #conclude(passage: Passage, side: Side, how: 'reset' | 'forget', now: number): void {
    const end = passage.ends[side]
    const sender = peerOf(passage, end).port
    if (how === 'forget' || end.unknown) sender.release(end.cid, end.silence())
    else end.reset(now + this.#options.lingerMs)
    end.port.#follow(end)
    if (end.port !== this) end.port.onTouch()
  }

  /** After everything that happens to an end: sees what came of it. */
  #follow(end: PortEnd): void {
    if (end.sendable) this.#ready.join(end)
    else {
      this.#ready.leave(end)
      if (this.#passages.get(end)!.state.kind === 'closed' && end.queue.length === 0) this.#forget(end)
    }
    this.#wakeBefore(end.wakeAt)
  }

  #forget(end: PortEnd): void {
    if (!this.#ends.delete(end)) return
    this.#options.policy?.end(directionOf(end))
    const passage = this.#passages.get(end)!
    const peer = peerOf(passage, end)
    peer.port.#left.delete(end)
    if (peer.queue.length > 0) this.#left.add(peer)
    passage.present--
    if (passage.present === 0) passage.ends.caller.port.#begun--
  }

  #wakeBefore(at: number): void {
    if (at < this.#wakeAt) this.#wakeAt = at
  }
}

/** The other guest's end of the same connection. */
const peerOf = ({ ends }: Passage, { side }: PortEnd): PortEnd => ends[otherSide(side)]

/** Who began the connection, as its guest sees it. */
const directionOf = ({ side }: PortEnd): Direction => (side === 'caller' ? 'fromGuest' : 'toGuest')

type Called = PortEnd | { cid: number; guestPort: number; peerCid: number; hostPort: number }

function eventOf({ op, length }: Readonly<PacketHeader>, end: PortEnd, peer: PortEnd): PassageEvent {
  const from = end.side
  switch (op) {
    case Op.RESPONSE:
      return { type: 'response', from }
    case Op.RST:
      return { type: 'rst', from }
    case Op.RW:
      return length <= LARGEST_PACKET && peer.allows(length) ? { type: 'data', from } : { type: 'violation', from }
    case Op.SHUTDOWN:
    case Op.CREDIT_UPDATE:
    case Op.CREDIT_REQUEST:
      return { type: 'data', from }
    default:
      return { type: 'violation', from }
  }
}
