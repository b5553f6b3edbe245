import { emptyHeader, Op, type PacketHeader } from './packet.js'

/** Resets owed to packets of no connection. While that many wait for a guest buffer, no packet is taken from the guest. */
const MAX_RESETS = 64

type Reset = Pick<PacketHeader, 'sourceCid' | 'sourcePort' | 'destinationCid' | 'destinationPort' | 'type'>

/** The answers to packets that belong to no connection, in their order. */
export class OrphanResets {
  #resets: Reset[] = []

  get size(): number {
    return this.#resets.length
  }

  /** As many as there may be: take no other packet that may need one. */
  get full(): boolean {
    return this.#resets.length >= MAX_RESETS
  }

  /** Owes the guest an answer to `packet`. A RST is never answered: two sides would answer each other for ever. */
  owe(packet: Readonly<PacketHeader>): void {
    if (packet.op === Op.RST) return
    this.#resets.push({
      sourceCid: packet.destinationCid,
      sourcePort: packet.destinationPort,
      destinationCid: packet.sourceCid,
      destinationPort: packet.sourcePort,
      type: packet.type,
    })
  }

  /** Takes the oldest into `header`; false if there is none. */
  take(header: PacketHeader): boolean {
    const reset = this.#resets.shift()
    if (reset === undefined) return false
    Object.assign(header, emptyHeader(), reset, { op: Op.RST })
    return true
  }

  clear(): void {
    this.#resets = []
  }
}
