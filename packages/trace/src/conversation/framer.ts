import { DEVICE_MANAGER_BYTE, MAGIC_VERSION, MESSAGE_SIZE } from '@upcall/wire'

// One direction of one connection, cut as its reader cuts it. Pure.

/** To the guest go requests, from it to the host come replies. */
export type Direction = 'to-guest' | 'to-host'

/** A piece of one direction. `offset` counts from the beginning of the direction. The bytes are copies. */
export type Frame =
  /** A line of the hybrid vsock handshake; `text` is without its newline. */
  | { readonly type: 'handshake'; readonly offset: number; readonly bytes: Uint8Array; readonly text: string }
  | { readonly type: 'service'; readonly offset: number; readonly byte: number }
  /** 1024 bytes. The magic may be wrong. */
  | { readonly type: 'message'; readonly offset: number; readonly bytes: Uint8Array }
  /** Bytes before the next magic, and a message that ends early. */
  | { readonly type: 'garbage' | 'cut'; readonly offset: number; readonly bytes: Uint8Array; readonly what: string }
  | { readonly type: 'data'; readonly offset: number; readonly bytes: Uint8Array }

/** What a direction is made of at the place that was reached. */
type Mode = 'start' | 'service' | 'messages' | 'data'

const MAGIC = Uint8Array.of(MAGIC_VERSION, MAGIC_VERSION >>> 8, MAGIC_VERSION >>> 16, MAGIC_VERSION >>> 24)
/** The longest line of a handshake: `CONNECT 4294967295`, its newline, and some more. */
const LONGEST_LINE = 32

export interface FramerOptions {
  readonly raw: boolean
  /** The recording begins in the middle of the connection: there may be no handshake, service byte or whole message at its beginning. */
  readonly midway: boolean
}

/** Cuts one direction into what it is made of. It never holds more than one unfinished message. */
export class Framer {
  /** It may be another stream than upcall's: then its first byte chooses no service. */
  doubtful = false
  readonly #word: string
  readonly #pending = new Uint8Array(MESSAGE_SIZE)
  #fill = 0
  /** Of the first pending byte. */
  #offset = 0
  #mode: Mode = 'start'
  readonly #toGuest: boolean
  readonly #midway: boolean
  #raw: boolean

  constructor(direction: Direction, { raw, midway }: FramerOptions) {
    this.#toGuest = direction === 'to-guest'
    this.#word = this.#toGuest ? 'connect ' : 'ok '
    this.#raw = raw
    this.#midway = midway
  }

  /** Bytes that have arrived. */
  get offset(): number {
    return this.#offset + this.#fill
  }

  /** The bytes that wait for more of their message. */
  get pending(): Uint8Array {
    return this.#pending.subarray(0, this.#fill)
  }

  /** Whether the bytes that wait can still become a message. */
  get mayBeMessage(): boolean {
    return this.#mode !== 'messages' || wrongMagicAt(this.pending) < 0
  }

  /** From here on it is a stream of something else. */
  toData(): Frame[] {
    this.#raw = true
    // The answer to CONNECT is still one.
    if (this.#mode === 'start') return []
    this.#mode = 'data'
    return this.#fill === 0 ? [] : [{ type: 'data', ...this.#take(this.#fill) }]
  }

  /** @param onFrame - Called for each piece, before the bytes after it are looked at. */
  feed(chunk: Uint8Array, onFrame: (frame: Frame) => void): void {
    let at = 0
    while (at < chunk.length || (this.#mode === 'data' && this.#fill > 0)) {
      if (this.#mode === 'data') return void onFrame({ type: 'data', ...this.#rest(chunk.subarray(at)) })
      const piece = chunk.subarray(at, at + this.#room())
      this.#pending.set(piece, this.#fill)
      this.#fill += piece.length
      at += piece.length
      for (let frame = this.#next(false); frame !== undefined; frame = this.#next(false)) onFrame(frame)
    }
  }

  end(onFrame: (frame: Frame) => void): void {
    for (let frame = this.#next(true); frame !== undefined; frame = this.#next(true)) onFrame(frame)
  }

  /** No more than one piece needs: a mode that changes then finds the rest of the chunk unread. */
  #room(): number {
    if (this.#mode === 'messages') return MESSAGE_SIZE - this.#fill
    return 1
  }

  #next(final: boolean): Frame | undefined {
    if (this.#fill === 0) return undefined
    switch (this.#mode) {
      case 'start':
        return this.#start(final)
      case 'service':
        return this.#service(final)
      case 'messages':
        return this.#message(final)
      case 'data':
        return final ? { type: 'data', ...this.#take(this.#fill) } : undefined
    }
  }

  /** The pending bytes and those of the chunk, as one. */
  #rest(chunk: Uint8Array): { offset: number; bytes: Uint8Array } {
    const bytes = new Uint8Array(this.#fill + chunk.length)
    bytes.set(this.pending)
    bytes.set(chunk, this.#fill)
    const offset = this.#offset
    this.#offset += bytes.length
    this.#fill = 0
    return { offset, bytes }
  }

  #start(final: boolean): Frame | undefined {
    const text = ascii(this.pending)
    const common = Math.min(text.length, this.#word.length)
    const likely = text.slice(0, common).toLowerCase() === this.#word.slice(0, common)
    if (likely && !final && text.length < LONGEST_LINE && !text.endsWith('\n')) return undefined
    const line = likely ? /^[a-z]+ \d{1,10}[^\n]*\n$/i.exec(text) : null
    this.#mode = this.#raw ? 'data' : this.#toGuest ? 'service' : 'messages'
    if (line === null) return this.#next(final)
    return { type: 'handshake', text: text.trimEnd(), ...this.#take(this.#fill) }
  }

  #service(final: boolean): Frame | undefined {
    if (this.#midway && this.pending[0] !== DEVICE_MANAGER_BYTE) {
      this.#mode = 'messages'
      return this.#next(final)
    }
    if (this.doubtful && this.pending[0] !== DEVICE_MANAGER_BYTE) {
      this.#mode = 'data'
      return this.#next(final)
    }
    const { offset, bytes } = this.#take(1)
    this.#mode = bytes[0] === DEVICE_MANAGER_BYTE ? 'messages' : 'data'
    return { type: 'service', offset, byte: bytes[0]! }
  }

  #message(final: boolean): Frame | undefined {
    if (this.#fill < MESSAGE_SIZE && !final) return undefined
    const wrongAt = wrongMagicAt(this.pending)
    if (wrongAt >= 0) {
      const next = indexOfMagic(this.pending)
      if (next > 0) return this.#garbage(next)
      // A frame whose first bytes alone are wrong is a message to its reader.
      if (this.#fill < MESSAGE_SIZE || this.#midway) return this.#garbage(this.#fill)
    }
    if (this.#fill === MESSAGE_SIZE) return { type: 'message', ...this.#take(MESSAGE_SIZE) }
    const what = `the stream ends after ${this.#fill} of the ${MESSAGE_SIZE} bytes of a message`
    return { type: 'cut', what, ...this.#take(this.#fill) }
  }

  #garbage(length: number): Frame {
    const what = `${length === 1 ? '1 byte belongs' : `${length} bytes belong`} to no message: no magic begins in them`
    return { type: 'garbage', what, ...this.#take(length) }
  }

  #take(length: number): { offset: number; bytes: Uint8Array } {
    const bytes = this.#pending.slice(0, length)
    const offset = this.#offset
    this.#pending.copyWithin(0, length, this.#fill)
    this.#fill -= length
    this.#offset += length
    return { offset, bytes }
  }
}

/** The first byte that differs from the magic, as far as there are bytes; -1 if there is no such byte. */
export function wrongMagicAt(bytes: Uint8Array): number {
  return bytes.subarray(0, MAGIC.length).findIndex((byte, i) => byte !== MAGIC[i])
}

function indexOfMagic(bytes: Uint8Array): number {
  for (let at = bytes.indexOf(MAGIC[0]!); at >= 0; at = bytes.indexOf(MAGIC[0]!, at + 1)) {
    if (at + MAGIC.length > bytes.length) return -1
    if (MAGIC.every((byte, i) => bytes[at + i] === byte)) return at
  }
  return -1
}

/** Other characters become ones that no handshake has. */
function ascii(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, LONGEST_LINE))
}
