import { randomUUID } from 'node:crypto'
import type { Clock } from '@upcall/foundation/clock'
import { systemClock } from '@upcall/foundation/clock'
import { DEFAULTS } from './defaults.js'
import { VsockDeviceError } from './errors.js'
import type { MuxerOptions } from './machine/muxer.js'
import { type PacketHeader, type SocketType, socketType, typeCode } from './machine/packet.js'
import type { Peer, PolicyGate, PolicyRefusal } from './machine/policy.js'
import type { SwitchPort } from './machine/switch/port.js'
import type { RefusalReason } from './machine/switch/routes.js'
import { type Refusal as SwitchRefusal, VsockSwitch } from './machine/switch/switch.js'
import { Trunks } from './machine/trunk/trunks.js'

/** A connection that was refused before the other side heard of it. Of a connection that the host asked for, `from.port` is 0. */
export interface Refusal {
  readonly from: { readonly cid: number; readonly port: number }
  readonly to: { readonly cid: number; readonly port: number }
  readonly type: SocketType
  readonly reason: RefusalReason
}

/** A device's place among the guests that can reach each other. */
export interface Place {
  readonly port: SwitchPort
  /** Whether other guests may begin connections: there is a driver in the guest. */
  up(isUp: boolean): void
  /** Does nothing after `leave`. */
  setGroups(groups: Iterable<string>): void
  /** Why the guest may not connect to this port of the host; undefined if it may. A refusal is told. */
  refusalOfGuest(request: Readonly<PacketHeader>, now: number): PolicyRefusal | undefined
  /** Why the host may not connect to this port of the guest; undefined if it may. A refusal is told. */
  refusalOfHost(hostCid: number, port: number, type: SocketType, now: number): PolicyRefusal | undefined
  leave(): void
}

export interface PlaceOptions {
  readonly cid: number
  readonly groups: Iterable<string>
  readonly limits: MuxerOptions
  readonly policy: PolicyGate
  readonly onRefusal: (refusal: Refusal) => void
}

/** The switch of a network, with those who want to hear of refusals. */
export class Hub {
  readonly switch: VsockSwitch
  /** Links to other networks. */
  readonly trunks: Trunks
  readonly #places = new Map<number, Pick<PlaceOptions, 'policy' | 'onRefusal'>>()
  /** The network's, which hears of every refusal. */
  onRefusal: (refusal: Refusal) => void = () => {}
  /** A guest of another network can be reached, or no longer. */
  onReach: (cid: number, isReachable: boolean) => void = () => {}
  /** Two networks have a guest with this CID. */
  onConflict: (cid: number) => void = () => {}

  constructor({ now }: Pick<Clock, 'now'> = systemClock) {
    this.switch = new VsockSwitch({
      admit: (request, now) => this.#refusalOfSibling(request, now),
      onRefusal: (refusal) => this.#refused(refusal, refusal.from.cid),
    })
    this.trunks = new Trunks({
      switch: this.switch,
      name: randomUUID(),
      ports: DEFAULTS,
      onReach: (cid, isReachable) => this.onReach(cid, isReachable),
      onConflict: (cid) => this.onConflict(cid),
      now,
    })
  }

  /** @throws {VsockDeviceError} `EADDRINUSE`: another guest of the network has the CID. */
  join({ cid, groups, limits, policy, onRefusal }: PlaceOptions): Place {
    if (this.switch.get(cid) !== undefined) throw cidTakenError(cid)
    const port = this.switch.join({ ...limits, cid, groups })
    const member = this.switch.get(cid)!
    member.up = false
    this.#places.set(cid, { policy, onRefusal })
    this.trunks.setLocal(cid, groups)
    const isHere = () => this.switch.get(cid) === member
    const told = (refused: Omit<SwitchRefusal, 'reason'>, reason: PolicyRefusal | undefined) => {
      if (reason !== undefined) this.#refused({ ...refused, reason }, cid)
      return reason
    }
    return {
      port,
      up: (isUp) => {
        member.up = isUp
      },
      setGroups: (groups) => {
        if (!isHere()) return
        member.groups = new Set(groups)
        this.trunks.setLocal(cid, member.groups)
      },
      refusalOfGuest: ({ sourcePort, destinationCid, destinationPort, type }, now) => {
        const [from, to] = [
          { cid, port: sourcePort },
          { cid: destinationCid, port: destinationPort },
        ]
        return told({ from, to, type }, policy.refusal('fromGuest', host(to.cid), to.port, now))
      },
      refusalOfHost: (hostCid, port, type, now) => {
        const refused = { from: { cid: hostCid, port: 0 }, to: { cid, port }, type: typeCode(type) }
        return told(refused, policy.refusal('toGuest', host(hostCid), port, now))
      },
      leave: () => {
        if (!isHere()) return
        this.switch.remove(cid)
        this.#places.delete(cid)
        this.trunks.removeLocal(cid)
      },
    }
  }

  /** Each of the two guests has a policy, and both have to agree. */
  #refusalOfSibling(
    { sourceCid, destinationCid, destinationPort }: Readonly<PacketHeader>,
    now: number,
  ): PolicyRefusal | undefined {
    const refusal = (cid: number, direction: 'fromGuest' | 'toGuest', other: number) => {
      const groups = this.switch.get(other)?.groups ?? NO_GROUPS
      const peer = { isHost: false, cid: other, groups }
      return this.#places.get(cid)?.policy.refusal(direction, peer, destinationPort, now)
    }
    return refusal(sourceCid, 'fromGuest', destinationCid) ?? refusal(destinationCid, 'toGuest', sourceCid)
  }

  /** Tells the network, and the device of the guest that has asked or, where the host has asked, was asked. */
  #refused({ from, to, type, reason }: SwitchRefusal, cid: number): void {
    const refusal: Refusal = { from, to, type: socketType(type), reason }
    this.#places.get(cid)?.onRefusal(refusal)
    this.onRefusal(refusal)
  }
}

const NO_GROUPS: ReadonlySet<string> = new Set()

const host = (cid: number): Peer => ({ isHost: true, cid, groups: NO_GROUPS })

const cidTakenError = (cid: number) =>
  new VsockDeviceError({
    code: 'EADDRINUSE',
    op: 'add',
    subject: `guest ${cid}`,
    what: 'another guest of the network has this CID',
    next: 'Give each guest of a network a CID of its own.',
  })
