import { DEVICE_MANAGER_BYTE, encodeConnect, HEADER_SIZE, MESSAGE_SIZE } from '@upcall/wire'

/** A piece of one direction of a connection. `offset` counts from the beginning of the input. */
export type Piece =
  /** A line of the hybrid vsock handshake, without its newline. */
  | { kind: 'handshake'; offset: number; text: string }
  | { kind: 'service'; offset: number; byte: number }
  /** 1024 bytes, of which the input had the first `given`. */
  | { kind: 'message'; offset: number; bytes: Uint8Array; given: number }
  /** Bytes that belong to no message. */
  | { kind: 'garbage'; offset: number; length: number }
  /** The input ends inside a message. */
  | { kind: 'cut'; offset: number; length: number }

const magic = Buffer.from(encodeConnect().subarray(0, 4))
const handshake = /^((?:CONNECT|OK) \d{1,10})\n/i
/** The longest thing that can begin at a place before a magic is seen there: a handshake's line, then a service byte. */
const LOOKAHEAD = 40

/**
 * Cuts a stream into what a connection is made of. After bytes that make no sense it goes on at the next magic, and connections may
 * follow one another.
 */
export class StreamCutter {
  #buffer: Buffer = Buffer.alloc(0)
  #offset = 0
  #garbage: { kind: 'garbage'; offset: number; length: number } | undefined

  push(bytes: Uint8Array): Piece[] {
    this.#buffer = this.#buffer.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#buffer, bytes])
    return this.#cut(false, false)
  }

  /**
   * The input, or a part of it that stands for itself, is complete.
   *
   * @param padded - Whether a short last message is filled up with zeros (hex texts leave them out), or was cut off.
   */
  end(padded: boolean): Piece[] {
    return this.#cut(true, padded)
  }

  #cut(final: boolean, padded: boolean): Piece[] {
    const pieces: Piece[] = []
    for (let piece = this.#next(final, padded); piece !== undefined; piece = this.#next(final, padded)) {
      if (piece.kind !== 'garbage') pieces.push(...this.#endGarbage(), piece)
      else if (this.#garbage === undefined) this.#garbage = piece
      else this.#garbage.length += piece.length
    }
    return final ? [...pieces, ...this.#endGarbage()] : pieces
  }

  #next(final: boolean, padded: boolean): Piece | undefined {
    const buffer = this.#buffer
    const offset = this.#offset
    if (buffer.length === 0) return undefined
    const line = handshake.exec(buffer.toString('latin1', 0, LOOKAHEAD))
    if (line !== null) {
      this.#take(line[0].length)
      return { kind: 'handshake', offset, text: line[1]! }
    }
    const at = buffer.indexOf(magic)
    if (at === 0) return this.#message(final, padded)
    if (at === 1 || (final && at < 0 && buffer.length === 1 && buffer[0] === DEVICE_MANAGER_BYTE))
      return { kind: 'service', offset, byte: this.#take(1)[0]! }
    const length = at < 0 ? buffer.length - (final ? 0 : LOOKAHEAD) : buffer[at - 1] === DEVICE_MANAGER_BYTE ? at - 1 : at
    if (length <= 0) return undefined
    this.#take(length)
    return { kind: 'garbage', offset, length }
  }

  #message(final: boolean, padded: boolean): Piece | undefined {
    const offset = this.#offset
    const given = Math.min(this.#buffer.length, MESSAGE_SIZE)
    if (given < MESSAGE_SIZE && !final) return undefined
    const taken = this.#take(given)
    if (given < MESSAGE_SIZE && !(padded && given >= HEADER_SIZE)) return { kind: 'cut', offset, length: given }
    const bytes = new Uint8Array(MESSAGE_SIZE)
    bytes.set(taken)
    return { kind: 'message', offset, bytes, given }
  }

  #take(length: number): Buffer {
    const taken = this.#buffer.subarray(0, length)
    this.#buffer = this.#buffer.subarray(length)
    this.#offset += length
    return taken
  }

  #endGarbage(): Piece[] {
    const garbage = this.#garbage
    this.#garbage = undefined
    return garbage === undefined ? [] : [garbage]
  }
}
