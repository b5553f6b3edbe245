import type { Chain } from './chain.js'
import type { GuestCredit } from './credit.js'
import { PACKET_HEADER_SIZE, type PacketHeader } from './packet.js'
import { Pieces } from './pieces.js'

/**
 * What a connection leads to where its bytes lie outside of this process, in a socket of the kernel. Between there and the guest's buffers
 * they are copied once. Neither method throws, and neither calls the connection.
 */
export interface DirectPort {
  /** Fills the pieces from their beginning. The result is how many bytes came: if it is fewer than there is room for, no more are there. */
  read(pieces: Pieces): number
  /** Takes bytes from the beginning of the pieces. The result is how many: 0 while bytes that came earlier have yet to be taken. */
  write(pieces: Pieces): number
}

/** The most guest buffers, and about the most bytes, that one turn of a connection fills. */
const MAX_BURST = 64
const MAX_BURST_BYTES = 256 * 1024
/** Nothing is left in it between two calls. */
const pieces = new Pieces()

/** The way of bytes between the guest's buffers and a port, as long as there is one. */
export class DirectPath {
  /** Bytes for the guest may be there. */
  arrived = false
  /** Bytes that are in guest buffers whose packets have yet to be made. */
  placed = 0
  #port: DirectPort | undefined
  /** How many guest buffers to try next: what came the last time, and room for as much again. */
  #burst = 1

  set port(port: DirectPort | undefined) {
    this.#port = port
    if (port === undefined) this.arrived = false
  }

  /** Says of the next packet how many of the bytes that are placed it has, at most `most`. */
  describe(header: PacketHeader, most: number): boolean {
    header.length = Math.min(most, this.placed)
    this.placed -= header.length
    return true
  }

  get open(): boolean {
    return this.#port !== undefined
  }

  /** How many guest buffers the next turn may fill. */
  burst(credit: GuestCredit): number {
    if (!this.arrived) return 0
    return Math.min(this.#burst, credit.packetsAvailable)
  }

  /**
   * Fills chains with bytes that have arrived, after the room for a header in each. The result is how many chains have some; `filled`
   * of each says how many.
   */
  fill(chains: readonly Chain[], count: number, available: number): number {
    pieces.clear()
    const most = Math.min(available, MAX_BURST_BYTES)
    for (let i = 0; i < count && pieces.length < most; i++) {
      const chain = chains[i]!
      const room = Math.min(chain.writable - PACKET_HEADER_SIZE, most - pieces.length)
      chain.filled = chain.room(PACKET_HEADER_SIZE, room, pieces)
      if (chain.filled < room) break
    }
    const asked = pieces.length
    let left = this.#port?.read(pieces) ?? 0
    if (left < asked) this.arrived = false
    this.placed = left
    let used = 0
    for (; left > 0; used++) {
      const chain = chains[used]!
      chain.filled = Math.min(chain.filled, left)
      left -= chain.filled
    }
    this.#burst = Math.min(Math.max(1, 2 * used), MAX_BURST)
    pieces.clear()
    return used
  }

  /** Hands the next `length` readable bytes of the chain on. The result is how many were taken; the chain's cursor is behind them. */
  take(chain: Chain, length: number): number {
    const port = this.#port
    if (port === undefined) return 0
    pieces.clear()
    chain.rest(length, pieces)
    const taken = pieces.length > 0 ? port.write(pieces) : 0
    pieces.clear()
    chain.skip(taken)
    return taken
  }
}
