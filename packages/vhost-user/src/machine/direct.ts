import type { Chain } from './chain.js'
import type { GuestCredit } from './credit.js'
import { PACKET_HEADER_SIZE } from './packet.js'
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
  #port: DirectPort | undefined
  /** How many guest buffers to try next: what came the last time, and room for as much again. */
  #burst = 1

  set port(port: DirectPort | undefined) {
    this.#port = port
    if (port === undefined) this.arrived = false
  }

  get open(): boolean {
    return this.#port !== undefined
  }

  /** How many guest buffers the next turn may fill. */
  burst(credit: GuestCredit): number {
    return Math.min(this.#burst, credit.packetsAvailable)
  }

  /**
   * Fills chains with bytes that have arrived, behind the room for a header in each. The result is how many chains have some; `filled`
   * of each says how many.
   */
  fill(chains: readonly Chain[], count: number, credit: GuestCredit): number {
    pieces.clear()
    const most = Math.min(credit.available, MAX_BURST_BYTES)
    for (let i = 0; i < count && pieces.length < most; i++) {
      const chain = chains[i]!
      const room = Math.min(chain.writable - PACKET_HEADER_SIZE, most - pieces.length)
      chain.filled = chain.room(PACKET_HEADER_SIZE, room, pieces)
      if (chain.filled < room) break
    }
    const asked = pieces.length
    let left = this.#port?.read(pieces) ?? 0
    if (left < asked) this.arrived = false
    let used = 0
    for (; left > 0; used++) {
      const chain = chains[used]!
      chain.filled = Math.min(chain.filled, left)
      left -= chain.filled
      credit.send(chain.filled)
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
