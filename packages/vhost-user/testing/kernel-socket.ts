import { concatenate } from '@upcall/foundation/bytes'
import {
  LARGEST_PACKET,
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
import type { GuestPacket } from './fake-guest.js'

export interface Address {
  readonly cid: number
  readonly port: number
}

/** What a socket needs of its guest. */
export interface Kernel {
  readonly cid: number
  send(header: Partial<PacketHeader>, payload: Uint8Array | undefined, reply: boolean): void
  remove(socket: KernelSocket): void
}

export type SocketKind = 'stream' | 'seqpacket'

export interface SocketOptions {
  /** SO_VM_SOCKETS_BUFFER_SIZE, in bytes. Default 64 KiB. */
  readonly bufferBytes?: number
  /** What it tells the peer of its buffer and of what it has taken, instead of the truth. */
  readonly lie?: (header: Partial<PacketHeader>) => Partial<PacketHeader>
}

export type SocketState = 'connecting' | 'established' | 'closing' | 'closed'

/** A message of a SEQPACKET socket, and its end: MSG_EOR was set, or not. */
export interface Message {
  readonly bytes: Uint8Array
  readonly endOfRecord: boolean
}

/** VSOCK_CLOSE_TIMEOUT. */
const CLOSE_MS = 8_000
/** A stream's reader tells of its credit when less than that is free. */
const TELL_BELOW = 64 * 1024

/** One socket of a guest. Its program calls `write`, `read`, `shutdown` and `close`; what they do to the wire is Linux's. */
export class KernelSocket {
  state: SocketState = 'connecting'
  /** ECONNRESET, EPROTO, …: what the program's next call fails with. */
  error: string | undefined
  /** How the peer's bytes came to their end. */
  end: 'shutdown' | 'reset' | undefined
  readonly port: number
  readonly peer: Address
  readonly kind: SocketKind
  readonly bufferBytes: number
  /** The most bytes that ever waited for the program. */
  mostWaiting = 0
  readonly #kernel: Kernel
  readonly #lie: NonNullable<SocketOptions['lie']>
  /** What waits for the program: pieces of the stream, or packets of messages. */
  #waiting: { bytes: Uint8Array; flags: number }[] = []
  #waitingBytes = 0
  #forwarded = 0
  #told = 0
  #messages = 0
  #peerAllocation = 0
  #peerForwarded = 0
  #sent = 0
  /** What the program has written and no packet has taken. `last`: flags of the packet that ends it. */
  #unsent: { bytes: Uint8Array; last: number }[] = []
  #unsentBytes = 0
  #peerShutdown = 0
  #shutdown = 0
  #shutdownWanted = 0
  #closeWanted = false
  #resetAt = Number.POSITIVE_INFINITY

  constructor(kernel: Kernel, port: number, peer: Address, kind: SocketKind, { bufferBytes = 64 * 1024, lie }: SocketOptions) {
    this.#kernel = kernel
    this.port = port
    this.peer = peer
    this.kind = kind
    this.bufferBytes = bufferBytes
    this.#lie = lie ?? ((header) => header)
  }

  // ── for its program ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Bytes, or one message. They wait here until the peer's credit allows them. */
  write(bytes: Uint8Array, { endOfRecord = false } = {}): void {
    this.#unsent.push({ bytes, last: this.kind === 'stream' ? 0 : SEQ_EOM | (endOfRecord ? SEQ_EOR : 0) })
    this.#unsentBytes += bytes.length
  }

  get unsent(): number {
    return this.#unsentBytes
  }

  get sent(): number {
    return this.#sent
  }

  /** The largest message that can be sent now. */
  get largestMessage(): number {
    return Math.min(this.#peerAllocation, this.bufferBytes)
  }

  /** The next bytes, at most `most`; empty if there are none. */
  read(most: number): Uint8Array {
    const parts: Uint8Array[] = []
    let left = most
    while (left > 0 && this.#waiting.length > 0) {
      const first = this.#waiting[0]!
      const part = first.bytes.subarray(0, left)
      parts.push(part)
      left -= part.length
      first.bytes = first.bytes.subarray(part.length)
      if (first.bytes.length === 0) this.#waiting.shift()
    }
    const bytes = concatenate(parts)
    this.#taken(bytes.length)
    const free = this.bufferBytes - ((this.#forwarded - this.#told) >>> 0)
    if (this.#forwarded !== this.#told && (free < TELL_BELOW || this.#waiting.length === 0)) this.#say(Op.CREDIT_UPDATE)
    return bytes
  }

  /** The next message, if it is complete. */
  readMessage(): Message | undefined {
    if (this.#messages === 0) return undefined
    const end = this.#waiting.findIndex(({ flags }) => (flags & SEQ_EOM) !== 0)
    const packets = this.#waiting.splice(0, end + 1)
    this.#messages--
    const bytes = concatenate(packets.map(({ bytes }) => bytes))
    this.#taken(bytes.length)
    this.#say(Op.CREDIT_UPDATE)
    return { bytes, endOfRecord: (packets.at(-1)!.flags & SEQ_EOR) !== 0 }
  }

  /** A whole message waits. */
  get complete(): boolean {
    return this.#messages > 0
  }

  /** Nothing will come after what `read` yields. */
  get ended(): boolean {
    const nothing = this.kind === 'stream' ? this.#waitingBytes === 0 : this.#messages === 0
    return nothing && this.end !== undefined
  }

  /** The peer takes no more. */
  get refused(): boolean {
    return this.state !== 'established' || (this.#peerShutdown & SHUTDOWN_RECEIVE) !== 0
  }

  /** As shutdown(2); what was written goes first. */
  shutdown(flags: number): void {
    this.#shutdownWanted |= flags
  }

  /** As close(2); what was written goes first. */
  close(): void {
    this.#closeWanted = true
  }

  /** As close(2) with SO_LINGER and no time: a RST at once. */
  abort(): void {
    if (this.state === 'closed') return
    this.#say(Op.RST)
    this.#finish()
  }

  // ── for the kernel ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** @internal */
  request(): void {
    this.#say(Op.REQUEST)
  }

  /** @internal */
  accept({ header }: GuestPacket, now: number): void {
    this.#hearCredit(header)
    this.state = 'established'
    this.#say(Op.RESPONSE, { reply: true })
    this.step(now)
  }

  /** @internal */
  hear(packet: GuestPacket, now: number): void {
    this.#hearCredit(packet.header)
    const { op } = packet.header
    if (this.state === 'connecting') {
      if (op === Op.RESPONSE) this.state = 'established'
      else this.#fail(op === Op.RST ? 'ECONNRESET' : 'EPROTO', op)
    } else if (this.state === 'established') this.#hearEstablished(packet)
    else if (op === Op.RST) this.#finish()
    this.step(now)
  }

  /** @internal When it wants to see the time. */
  get wakeAt(): number {
    return this.#resetAt
  }

  /** @internal Sends what may be sent; true if that was anything. */
  step(now: number): boolean {
    if (this.state === 'closed') return false
    if (now >= this.#resetAt) {
      this.#say(Op.RST)
      this.#finish()
      return true
    }
    const before = this.#sent
    if (this.state === 'established') this.#sendData()
    const moved = this.#sent !== before
    const through = this.#unsent.length === 0 || this.refused
    if (this.state !== 'established' || !through) return moved
    return this.#sendEnds(now) || moved
  }

  #sendData(): void {
    while (this.#unsent.length > 0 && !this.refused) {
      const first = this.#unsent[0]!
      const window = Math.min(this.#peerAllocation, this.bufferBytes)
      const credit = window - ((this.#sent - this.#peerForwarded) >>> 0)
      const count = Math.min(first.bytes.length, LARGEST_PACKET, credit)
      if (count <= 0) return
      const whole = count === first.bytes.length
      this.#say(Op.RW, { flags: whole ? first.last : 0, payload: first.bytes.slice(0, count) })
      this.#sent = (this.#sent + count) >>> 0
      this.#unsentBytes -= count
      first.bytes = first.bytes.subarray(count)
      if (whole) this.#unsent.shift()
    }
  }

  #sendEnds(now: number): boolean {
    if (this.#closeWanted) {
      if (this.#peerShutdown === SHUTDOWN_BOTH) {
        this.#say(Op.RST)
        this.#finish()
        return true
      }
      this.#shutdown = SHUTDOWN_BOTH
      this.#say(Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
      this.state = 'closing'
      this.#resetAt = now + CLOSE_MS
      return true
    }
    const fresh = this.#shutdownWanted & ~this.#shutdown
    if (fresh === 0) return false
    this.#shutdown |= fresh
    this.#say(Op.SHUTDOWN, { flags: fresh })
    return true
  }

  #hearEstablished({ header, payload }: GuestPacket): void {
    switch (header.op) {
      case Op.RW:
        this.#enqueue(payload, header.flags)
        return
      case Op.CREDIT_REQUEST:
        this.#say(Op.CREDIT_UPDATE, { reply: true })
        return
      case Op.SHUTDOWN:
        this.#peerShutdown |= header.flags & SHUTDOWN_BOTH
        if ((header.flags & SHUTDOWN_SEND) !== 0) this.end ??= 'shutdown'
        if (this.#peerShutdown === SHUTDOWN_BOTH && this.#waiting.length === 0) {
          this.#say(Op.RST, { reply: true })
          this.#finish()
        }
        return
      case Op.RST:
        this.end ??= 'reset'
        this.#finish()
    }
  }

  #enqueue(bytes: Uint8Array, flags: number): void {
    if (bytes.length === 0) return
    this.#waitingBytes += bytes.length
    this.mostWaiting = Math.max(this.mostWaiting, this.#waitingBytes)
    if (this.#waitingBytes > this.bufferBytes)
      throw new Error(
        `guest ${this.#kernel.cid} port ${this.port}: ${this.#waitingBytes} bytes in a buffer of ${this.bufferBytes}`,
      )
    if (this.end !== undefined) throw new Error(`guest ${this.#kernel.cid} port ${this.port}: bytes after the end`)
    this.#waiting.push({ bytes, flags })
    if ((flags & SEQ_EOM) !== 0) this.#messages++
  }

  #taken(count: number): void {
    this.#waitingBytes -= count
    this.#forwarded = (this.#forwarded + count) >>> 0
  }

  #hearCredit({ bufferAllocation, forwardCount }: Readonly<PacketHeader>): void {
    this.#peerAllocation = bufferAllocation
    this.#peerForwarded = forwardCount
  }

  #fail(error: string, op: number): void {
    this.error = error
    if (op !== Op.RST) this.#say(Op.RST, { reply: true })
    this.end ??= 'reset'
    this.#finish()
  }

  #finish(): void {
    this.end ??= 'reset'
    this.state = 'closed'
    this.#resetAt = Number.POSITIVE_INFINITY
    this.#kernel.remove(this)
  }

  #say(op: number, { flags = 0, payload, reply = false }: { flags?: number; payload?: Uint8Array; reply?: boolean } = {}): void {
    // What it sends after it is closed has no socket any more: there is nothing to say.
    if (this.state === 'closed') return
    this.#told = this.#forwarded
    const header = {
      sourcePort: this.port,
      destinationCid: this.peer.cid,
      destinationPort: this.peer.port,
      type: this.kind === 'stream' ? TYPE_STREAM : TYPE_SEQPACKET,
      op,
      flags,
      bufferAllocation: this.bufferBytes,
      forwardCount: this.#forwarded,
    }
    this.#kernel.send(this.#lie(header), payload, reply)
  }
}
