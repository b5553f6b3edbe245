import type { Chain } from './chain.js'
import { guestError } from './errors.js'
import { decodePacketHeader, emptyHeader, encodePacketHeader, PACKET_HEADER_SIZE, type PacketHeader } from './packet.js'

/** The least a receive buffer must hold: a header and one byte. */
const MIN_RECEIVE_CHAIN = PACKET_HEADER_SIZE + 1

/** Reads and writes the headers of packets in chains. One object is used over and over: a packet costs no allocation. */
export class PacketIo {
  /** The header that `read` found, or that `write` writes. */
  readonly header: PacketHeader = emptyHeader()
  readonly #bytes = new Uint8Array(PACKET_HEADER_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)

  /** Reads the header of a transmit chain, once: the guest cannot change it afterwards. The chain then stands at the payload. */
  read(chain: Chain): PacketHeader {
    if (chain.writable > 0) {
      throw guestError('DESCRIPTOR_ORDER', `transmit chain ${chain.head}`, `${chain.writable} of its bytes are writable`)
    }
    if (chain.readable < PACKET_HEADER_SIZE) {
      throw guestError('CHAIN_TOO_SHORT', `transmit chain ${chain.head}`, `its ${chain.readable} bytes hold no packet header`)
    }
    chain.read(this.#bytes, 0, PACKET_HEADER_SIZE)
    decodePacketHeader(this.#view, this.header)
    const room = chain.readable - PACKET_HEADER_SIZE
    if (this.header.length > room) {
      const what = `its packet claims ${this.header.length} bytes, and it holds ${room}`
      throw guestError('CHAIN_TOO_SHORT', `transmit chain ${chain.head}`, what)
    }
    return this.header
  }

  /** A copy of the header's bytes, as `read` found them. */
  headerBytes(): Uint8Array {
    return this.#bytes.slice()
  }

  /** How many bytes of payload a receive chain has room for, at least one. */
  room(chain: Chain): number {
    if (chain.readable > 0) {
      throw guestError('DESCRIPTOR_ORDER', `receive chain ${chain.head}`, `${chain.readable} of its bytes are readable`)
    }
    if (chain.writable < MIN_RECEIVE_CHAIN) {
      const what = `it has ${chain.writable} bytes, and a packet needs ${MIN_RECEIVE_CHAIN}`
      throw guestError('CHAIN_TOO_SHORT', `receive chain ${chain.head}`, what)
    }
    return chain.writable - PACKET_HEADER_SIZE
  }

  /** Writes the header into a receive chain, which then stands at the payload. */
  write(chain: Chain): void {
    encodePacketHeader(this.header, this.#view)
    chain.write(this.#bytes, 0, PACKET_HEADER_SIZE)
  }
}
