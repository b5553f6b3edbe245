import { VsockDeviceError } from './errors.js'
import type { MuxerOptions } from './machine/muxer.js'
import { TYPE_SEQPACKET } from './machine/packet.js'
import type { SwitchPort } from './machine/switch/port.js'
import { type RefusalReason, type Refusal as SwitchRefusal, VsockSwitch } from './machine/switch/switch.js'

/** A connection that was refused before the other side heard of it. */
export interface Refusal {
  readonly from: { readonly cid: number; readonly port: number }
  readonly to: { readonly cid: number; readonly port: number }
  readonly type: 'stream' | 'seqpacket'
  readonly reason: RefusalReason
}

/** A device's place among the guests that can reach each other. */
export interface Place {
  readonly port: SwitchPort
  /** Whether other guests may begin connections: there is a driver in the guest. */
  up(isUp: boolean): void
  setGroups(groups: Iterable<string>): void
  leave(): void
}

export interface PlaceOptions {
  readonly cid: number
  readonly groups: Iterable<string>
  readonly limits: MuxerOptions
  readonly onRefusal: (refusal: Refusal) => void
}

/** The switch of a network, with those who want to hear of refusals. */
export class Hub {
  readonly switch: VsockSwitch
  readonly #places = new Map<number, (refusal: Refusal) => void>()
  /** The network's, which hears of every refusal. */
  onRefusal: (refusal: Refusal) => void = () => {}

  constructor() {
    this.switch = new VsockSwitch({ onRefusal: (refusal) => this.refused(refusal) })
  }

  /** @throws {VsockDeviceError} `EADDRINUSE`: another guest of the network has the CID. */
  join({ cid, groups, limits, onRefusal }: PlaceOptions): Place {
    if (this.switch.get(cid) !== undefined) throw cidTakenError(cid)
    const port = this.switch.join({ ...limits, cid, groups })
    const member = this.switch.get(cid)!
    member.up = false
    this.#places.set(cid, onRefusal)
    return {
      port,
      up: (isUp) => {
        member.up = isUp
      },
      setGroups: (groups) => {
        member.groups = new Set(groups)
      },
      leave: () => {
        if (this.switch.get(cid) !== member) return
        this.switch.remove(cid)
        this.#places.delete(cid)
      },
    }
  }

  /** Tells the network and the device of the guest that has asked. */
  refused({ from, to, type, reason }: SwitchRefusal): void {
    const refusal: Refusal = { from, to, type: type === TYPE_SEQPACKET ? 'seqpacket' : 'stream', reason }
    this.#places.get(from.cid)?.(refusal)
    this.onRefusal(refusal)
  }
}

const cidTakenError = (cid: number) =>
  new VsockDeviceError({
    code: 'EADDRINUSE',
    op: 'add',
    subject: `guest ${cid}`,
    what: 'another device of the network has this CID',
    next: 'Give each guest of a network a CID of its own.',
  })
