import { UPCALL_PORT } from '@upcall/wire'
import type { ConversationEvent } from '../conversation/conversation.js'
import type { Direction } from '../conversation/framer.js'
import type { VsockEnd, VsockOp, VsockPacket } from './vsock-packet.js'

export interface ConversationPacketsOptions {
  /** The connection's number, which becomes the host's port. */
  readonly conn: number
  /** Default 3. */
  readonly guestCid?: bigint | undefined
  /** Until a `CONNECT` tells another. Default 219. */
  readonly guestPort?: number | undefined
}

/** The host's ports begin here, as those of Firecracker do. */
const FIRST_HOST_PORT = 0x4000_0000

/** Makes the packets of one connection, as a monitor of the vsock device would see them: one for each message. */
export class ConversationPackets {
  readonly #host: VsockEnd
  #guest: VsockEnd
  #connected = false
  readonly #ended = new Set<Direction>()

  constructor({ conn, guestCid = 3n, guestPort = UPCALL_PORT }: ConversationPacketsOptions) {
    this.#host = { cid: 2n, port: FIRST_HOST_PORT + (conn % FIRST_HOST_PORT) }
    this.#guest = { cid: guestCid, port: guestPort }
  }

  /** Both directions have ended: no packet comes any more. */
  get isOver(): boolean {
    return this.#ended.size === 2
  }

  /** The packets that an event stands for, none or more. */
  of(event: ConversationEvent): VsockPacket[] {
    switch (event.type) {
      case 'handshake':
        // The handshake is the VMM's. On vsock itself it is the connecting.
        if (event.direction === 'to-guest') this.#guest = { ...this.#guest, port: Number(/\d+/.exec(event.text)?.[0]) >>> 0 }
        return this.#connect()
      case 'service':
        return [...this.#connect(), this.#packet(event.direction, 'payload', Uint8Array.of(event.byte))]
      case 'message':
      case 'garbage':
      case 'cut':
      case 'data':
        return [...this.#connect(), this.#packet(event.direction, 'payload', event.bytes)]
      case 'end':
        this.#ended.add(event.direction)
        return [...this.#connect(), this.#packet(event.direction, 'disconnect')]
      default:
        return []
    }
  }

  #connect(): VsockPacket[] {
    if (this.#connected) return []
    this.#connected = true
    return [this.#packet('to-guest', 'connect'), this.#packet('to-host', 'connect')]
  }

  #packet(direction: Direction, op: VsockOp, payload: Uint8Array = new Uint8Array(0)): VsockPacket {
    const [source, destination] = direction === 'to-guest' ? [this.#host, this.#guest] : [this.#guest, this.#host]
    return { source, destination, op, payload }
  }
}
