import type { PacketHeader } from '../packet.js'
import { type PortOptions, SwitchPort } from './port.js'
import type { RefusalReason, Routes } from './routes.js'

/** A connection that a guest asked for, and did not get. */
export interface Refusal {
  readonly from: { readonly cid: number; readonly port: number }
  readonly to: { readonly cid: number; readonly port: number }
  /** As in the packet: 1 is STREAM, 2 is SEQPACKET. */
  readonly type: number
  readonly reason: RefusalReason
}

/** A guest that others can reach. */
export interface Member {
  readonly cid: number
  /** Two guests reach each other if they have a group in common. */
  groups: ReadonlySet<string>
  readonly port: SwitchPort
  /** There is a driver in the guest. */
  up: boolean
}

export interface SwitchOptions {
  /** Asked for each connection between two guests that could be made: an answer is the reason why it is refused. */
  readonly admit?: ((request: Readonly<PacketHeader>, now: number) => string | undefined) | undefined
  readonly onRefusal?: ((refusal: Refusal) => void) | undefined
}

/** Knows which guests there are and who may reach whom. The packets themselves go from port to port. */
export class VsockSwitch implements Routes<SwitchPort> {
  readonly #members = new Map<number, Member>()
  readonly #options: SwitchOptions

  constructor(options: SwitchOptions = {}) {
    this.#options = options
  }

  /** A port for one guest, which is reachable as long as it is `up`. Its CID is free. */
  join({ cid, groups, ...options }: PortOptions & { readonly cid: number; readonly groups: Iterable<string> }): SwitchPort {
    const port = new SwitchPort(this, options)
    this.add({ cid, groups: new Set(groups), port, up: true })
    return port
  }

  /** Makes a guest known. Its CID is free. */
  add(member: Member): void {
    this.#members.set(member.cid, member)
  }

  /** A guest that is unknown from now on. Connections that it has are its port's affair. */
  remove(cid: number): void {
    this.#members.delete(cid)
  }

  get(cid: number): Member | undefined {
    return this.#members.get(cid)
  }

  /** The port that a REQUEST goes to, or why it goes nowhere. */
  route(request: Readonly<PacketHeader>, now: number): SwitchPort | RefusalReason {
    const from = this.#members.get(request.sourceCid)
    const to = this.#members.get(request.destinationCid)
    if (from === undefined || to === undefined) return 'unknown-cid'
    if (from !== to && !shareGroup(from.groups, to.groups)) return 'group'
    if (!to.up) return 'not-running'
    return this.#options.admit?.(request, now) ?? to.port
  }

  refused(request: Readonly<PacketHeader>, reason: RefusalReason): void {
    this.#options.onRefusal?.({
      from: { cid: request.sourceCid, port: request.sourcePort },
      to: { cid: request.destinationCid, port: request.destinationPort },
      type: request.type,
      reason,
    })
  }
}

function shareGroup(some: ReadonlySet<string>, others: ReadonlySet<string>): boolean {
  for (const group of some) if (others.has(group)) return true
  return false
}
