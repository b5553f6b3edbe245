import { emptyHeader, Op, type PacketHeader, TYPE_STREAM } from '../src/machine/packet.js'
import type { GuestPacket } from './fake-guest.js'
import type { Node } from './fake-network.js'

/** A guest with a kernel of its own making. `act` is called once a round. */
export class Attacker {
  readonly node: Node
  /** It takes what comes, and gives the device buffers for more. */
  reads = true
  readonly heard: GuestPacket[] = []
  readonly #act: (attacker: Attacker, round: number) => void
  #round = 0

  constructor(node: Node, act: (attacker: Attacker, round: number) => void) {
    this.node = node
    node.raw = true
    this.#act = act
  }

  step(): boolean {
    this.heard.length = 0
    if (this.reads) {
      this.heard.push(...this.node.driver.receive())
      this.node.driver.supply()
    }
    this.#act(this, this.#round++)
    return false
  }

  /** False if the transmit ring has no room. */
  say(
    op: number,
    to: { cid: number; port: number },
    fields: Partial<PacketHeader> = {},
    payload: Uint8Array = new Uint8Array(0),
  ): boolean {
    const header = {
      ...emptyHeader(),
      sourceCid: this.node.cid,
      destinationCid: to.cid,
      destinationPort: to.port,
      type: TYPE_STREAM,
      op,
      bufferAllocation: 2 ** 32 - 1,
      length: payload.length,
      ...fields,
    }
    return this.node.driver.send(header, payload)
  }

  /** Says as much as the transmit ring has room for. */
  saySo(fields: () => Partial<PacketHeader> & { op: number; to: { cid: number; port: number } }, payload?: Uint8Array): void {
    for (let i = 0; i < 200; i++) {
      const { op, to, ...rest } = fields()
      if (!this.say(op, to, rest, payload)) return
    }
  }

  /** Lets in each guest that asks for a connection, and answers each question for credit with a lie. */
  welcome(fields: Partial<PacketHeader> = {}): void {
    for (const { header } of this.heard) {
      const { sourceCid: cid, sourcePort: port, destinationPort: sourcePort, type, op } = header
      if (op === Op.REQUEST) this.say(Op.RESPONSE, { cid, port }, { sourcePort, type, ...fields })
      if (op === Op.CREDIT_REQUEST) this.say(Op.CREDIT_UPDATE, { cid, port }, { sourcePort, type, ...fields })
    }
  }
}
