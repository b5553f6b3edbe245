import {
  Op,
  type PacketHeader,
  SEQ_EOM,
  SEQ_EOR,
  SHUTDOWN_BOTH,
  SHUTDOWN_RECEIVE,
  SHUTDOWN_SEND,
  TYPE_SEQPACKET,
  TYPE_STREAM,
} from '../src/machine/packet.js'
import type { FakeFrontEnd } from './fake-front-end.js'
import type { GuestPacket } from './fake-guest.js'
import { until } from './until.js'

const BLOCK = 4096

/** Bytes that tell their places in a stream, the first of which is `from`. */
export function numbered(count: number, from = 0): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => (from + i) % 251)
}

/** How many of the bytes, the first of which is `from`, are not in their places. */
export function misplaced(bytes: Uint8Array, from: number): number {
  let count = 0
  for (const [i, byte] of bytes.entries()) if (byte !== (from + i) % 251) count++
  return count
}

export interface GuestMessage {
  readonly data: Uint8Array
  readonly eor: boolean
}

const DEADLINE_MS = 9_000

/**
 * One socket of a guest that behaves as Linux's do: what came before the peer's SHUTDOWN or RST stays readable; a RST of an established
 * connection reads like an end; the peer's SHUTDOWN of both halves is answered with a RST once everything has been read.
 */
export class GuestSocket {
  state: 'connecting' | 'open' | 'closed' = 'connecting'
  /** Bytes that the guest's kernel has, and of those the ones that its program has read. */
  received = 0
  taken = 0
  /** Of the bytes that came, those that are not `numbered`. */
  misplaced = 0
  /** How many bytes its program may read yet; of SEQPACKET, how many messages. */
  appetite = Number.POSITIVE_INFINITY
  /** SEQPACKET: what its program has read. */
  readonly messages: GuestMessage[] = []
  /** How the host's bytes came to their end, and whether the host takes more of ours. */
  end: 'shutdown' | 'reset' | undefined
  refused = false
  /** Every operation that came, without RW, CREDIT_UPDATE and CREDIT_REQUEST. */
  readonly heard: string[] = []
  readonly hostPort: number
  readonly guestPort: number
  readonly type: number
  readonly #send: (fields: Partial<PacketHeader>, payload?: Uint8Array) => boolean
  readonly #bufferBytes: number
  #peerShutdown = 0
  #hostAllocation = 0
  #hostForwarded = 0
  /** Bytes that the program has written, and how many of them have left. */
  #wanted = 0
  sent = 0
  #shutdown = 0
  #owed: number[] = []
  #told = 0
  /** SEQPACKET: what came, and what waits to go out. */
  #pieces: { payload: Uint8Array; flags: number }[] = []
  #outgoing: { data: Uint8Array; flags: number }[] = []

  constructor(
    ports: { hostPort: number; guestPort: number; type: number },
    send: (fields: Partial<PacketHeader>, payload?: Uint8Array) => boolean,
    bufferBytes: number,
  ) {
    this.hostPort = ports.hostPort
    this.guestPort = ports.guestPort
    this.type = ports.type
    this.#send = send
    this.#bufferBytes = bufferBytes
  }

  /** Bytes to send, as the host's credit allows. */
  write(count: number): void {
    this.#wanted += count
  }

  /** A message of SEQPACKET. Without `ends`, the rest of it never comes. */
  sendMessage(data: Uint8Array, { eor = false, ends = true } = {}): void {
    let at = 0
    for (; at < data.length - BLOCK; at += BLOCK) this.#outgoing.push({ data: data.subarray(at, at + BLOCK), flags: 0 })
    const flags = ends ? SEQ_EOM | (eor ? SEQ_EOR : 0) : 0
    this.#outgoing.push({ data: data.subarray(at), flags })
    this.#wanted += data.length
  }

  /** As shutdown(2); what was written goes first. */
  shutdown(flags: number): void {
    this.#shutdown |= flags
    if ((flags & SHUTDOWN_SEND) === 0 || this.sent === this.#wanted) this.#owe(Op.SHUTDOWN)
  }

  close(): void {
    this.shutdown(SHUTDOWN_BOTH)
  }

  reset(): void {
    this.state = 'closed'
    this.#owe(Op.RST)
  }

  /** @internal */
  request(): void {
    this.#owe(Op.REQUEST)
  }

  /** @internal The other end of the handshake. */
  respond(): void {
    this.state = 'open'
    this.#owe(Op.RESPONSE)
  }

  /** @internal */
  hear({ header, payload }: GuestPacket): void {
    this.#hostAllocation = header.bufferAllocation
    this.#hostForwarded = header.forwardCount
    switch (header.op) {
      case Op.RESPONSE:
        this.state = 'open'
        break
      case Op.RW:
        this.misplaced += misplaced(payload, this.received)
        this.received += payload.length
        if (this.type === TYPE_SEQPACKET) this.#pieces.push({ payload, flags: header.flags })
        return
      case Op.CREDIT_REQUEST:
        this.#owe(Op.CREDIT_UPDATE)
        return
      case Op.SHUTDOWN:
        this.#peerShutdown |= header.flags
        if ((header.flags & SHUTDOWN_SEND) !== 0) this.end ??= 'shutdown'
        if ((header.flags & SHUTDOWN_RECEIVE) !== 0) this.refused = true
        this.heard.push(`SHUTDOWN ${header.flags}`)
        return
      case Op.RST:
        this.state = 'closed'
        this.end ??= 'reset'
        this.refused = true
        this.heard.push('RST')
    }
  }

  /** @internal */
  step(): void {
    if (this.type === TYPE_SEQPACKET) this.#readMessages()
    else this.#readBytes()
    if (this.taken - this.#told >= this.#bufferBytes / 4 && this.state === 'open') this.#owe(Op.CREDIT_UPDATE)
    if (this.state === 'open' && this.#peerShutdown === SHUTDOWN_BOTH && this.taken === this.received) this.reset()
    while (this.state === 'open' && !this.refused && this.sent < this.#wanted) {
      const credit = this.#hostAllocation - ((this.sent - this.#hostForwarded) >>> 0)
      const count = this.type === TYPE_SEQPACKET ? this.#sendPiece(credit) : this.#sendBytes(credit)
      if (count === 0) break
      this.sent += count
      if (this.sent === this.#wanted && (this.#shutdown & SHUTDOWN_SEND) !== 0) this.#owe(Op.SHUTDOWN)
    }
    this.#flush()
  }

  #readBytes(): void {
    const eaten = Math.min(this.appetite, this.received - this.taken)
    this.taken += eaten
    this.appetite -= eaten
  }

  /** Linux tells of its credit after each message. */
  #readMessages(): void {
    for (; this.appetite > 0; this.appetite--) {
      const last = this.#pieces.findIndex(({ flags }) => (flags & SEQ_EOM) !== 0)
      if (last < 0) return
      const pieces = this.#pieces.splice(0, last + 1)
      const data = Buffer.concat(pieces.map(({ payload }) => payload))
      this.messages.push({ data, eor: (pieces.at(-1)!.flags & SEQ_EOR) !== 0 })
      this.taken += data.length
      if (this.state === 'open') this.#owe(Op.CREDIT_UPDATE)
    }
  }

  #sendBytes(credit: number): number {
    const count = Math.min(BLOCK, credit, this.#wanted - this.sent)
    return count > 0 && this.#packet(Op.RW, {}, numbered(count, this.sent)) ? count : 0
  }

  #sendPiece(credit: number): number {
    const { data, flags } = this.#outgoing[0]!
    if (data.length > credit || !this.#packet(Op.RW, { flags }, data)) return 0
    this.#outgoing.shift()
    return data.length
  }

  #owe(op: number): void {
    this.#owed.push(op)
    this.#flush()
  }

  #flush(): void {
    for (let op = this.#owed[0]; op !== undefined; op = this.#owed[0]) {
      const flags = op === Op.SHUTDOWN ? this.#shutdown : 0
      if (!this.#packet(op, { flags })) return
      this.#owed.shift()
    }
  }

  #packet(op: number, fields: Partial<PacketHeader>, payload?: Uint8Array): boolean {
    const { guestPort: sourcePort, hostPort: destinationPort } = this
    const credit = { bufferAllocation: this.#bufferBytes, forwardCount: this.taken }
    if (!this.#send({ op, sourcePort, destinationPort, type: this.type, ...credit, ...fields }, payload)) return false
    this.#told = this.taken
    return true
  }
}

/** A guest's kernel with sockets, over a VMM without a VM. It moves only while a test waits with `until`. */
export class GuestSockets {
  readonly #vmm: FakeFrontEnd
  readonly #bufferBytes: number
  readonly #sockets = new Map<string, GuestSocket>()
  /** Told of every connection that the host begins; it refuses those that it does not want. */
  onConnection: (socket: GuestSocket) => void = () => {}
  /** The driver gives the device no receive buffers. */
  deaf = false
  #port = 1024

  constructor(vmm: FakeFrontEnd, bufferBytes = 65_536) {
    this.#vmm = vmm
    this.#bufferBytes = bufferBytes
  }

  connect(hostPort: number, type = TYPE_STREAM): GuestSocket {
    const socket = this.#add(hostPort, this.#port++, type)
    socket.request()
    return socket
  }

  /** The next connection that the host begins. */
  async accepted(before: (socket: GuestSocket) => void = () => {}): Promise<GuestSocket> {
    let found: GuestSocket | undefined
    this.onConnection = (socket) => {
      found = socket
      before(socket)
    }
    await this.until(() => found !== undefined)
    return found!
  }

  /** Lets guest and host run until something holds. */
  until(holds: () => unknown, what?: string): Promise<void> {
    return until(holds, { ms: DEADLINE_MS, step: () => this.step(), what })
  }

  /** Lets both run for a while in which nothing is waited for. */
  async rest(turns = 60): Promise<void> {
    let left = turns
    await this.until(() => left-- <= 0)
  }

  step(): void {
    const { guest } = this.#vmm
    guest.tx.takeUsed()
    for (const packet of guest.received()) this.#hear(packet)
    if (!this.deaf) guest.supply(64)
    for (const socket of this.#sockets.values()) socket.step()
    this.#vmm.kick(0)
    this.#vmm.kick(1)
  }

  #hear(packet: GuestPacket): void {
    const { sourcePort: hostPort, destinationPort: guestPort, op } = packet.header
    const known = this.#sockets.get(`${hostPort}:${guestPort}`)
    if (op !== Op.REQUEST) {
      known?.hear(packet)
      return
    }
    const socket = this.#add(hostPort, guestPort, packet.header.type)
    socket.hear(packet)
    this.onConnection(socket)
    if (socket.state === 'connecting') socket.respond()
  }

  #add(hostPort: number, guestPort: number, type: number): GuestSocket {
    const { guest } = this.#vmm
    const send = (fields: Partial<PacketHeader>, payload?: Uint8Array) => {
      if (guest.tx.freeDescriptors < 4) return false
      guest.send(fields, payload)
      return true
    }
    const socket = new GuestSocket({ hostPort, guestPort, type }, send, this.#bufferBytes)
    this.#sockets.set(`${hostPort}:${guestPort}`, socket)
    return socket
  }
}
