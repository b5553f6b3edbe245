import type { PacketHeader } from './packet.js'
import { MAX_PACKETS, PacketWindow, packetLimit } from './packet-window.js'

// Credit (virtio 1.2, 5.10.6.3): each side tells how much it buffers (buf_alloc) and how much of what it received has been taken
// (fwd_cnt). The other side may have buf_alloc bytes under way beyond that. All counters are 32 bits wide and wrap.

export const NEVER = Number.POSITIVE_INFINITY

/** The guest is told of its credit at once when this part of its window has been taken since it was last told: 1/2. */
const CREDIT_PART = 2
/** Below that part, the guest is told after this time, in milliseconds, unless another packet tells it earlier. */
const CREDIT_DELAY_MS = 20
/** How long a connection without credit waits before it asks again, in milliseconds: twice as long each time, up to the longest. */
const FIRST_ASK_MS = 10
const LONGEST_ASK_MS = 500

/** The credit that the guest has here: what came from it, what the reader has taken, and what the guest knows of that. */
export class HostCredit {
  /** The size of the buffer: how many bytes may wait for the reader. */
  readonly bufferBytes: number
  received = 0
  taken = 0
  told = 0
  /** When the guest is told at the latest. */
  tellAt = NEVER

  constructor(bufferBytes: number) {
    this.bufferBytes = bufferBytes
  }

  /** Whether the guest may send `length` more bytes. */
  allows(length: number): boolean {
    return ((this.received - this.taken) >>> 0) + length <= this.bufferBytes
  }

  /** Every byte that came has been taken. */
  get drained(): boolean {
    return this.received === this.taken
  }

  receive(length: number): void {
    this.received = (this.received + length) >>> 0
  }

  take(length: number): void {
    this.taken = (this.taken + length) >>> 0
  }

  /**
   * Whether to tell the guest at once: half of its window has been taken. Otherwise `tellAt` says when. The window is the smaller of
   * both buffers: Linux has no more under way than its own socket would take (virtio_transport_tx_buf_size; Debian's 6.1.192 and
   * 6.12.117).
   */
  tellNow(guestBufferBytes: number, now: number): boolean {
    const untold = (this.taken - this.told) >>> 0
    if (untold === 0) return false
    if (untold >= Math.min(this.bufferBytes, guestBufferBytes) / CREDIT_PART) return true
    if (this.tellAt === NEVER) this.tellAt = now + CREDIT_DELAY_MS
    return false
  }

  /** What the guest knows of lets it send nothing more, though bytes have been taken since. */
  starves(guestBufferBytes: number): boolean {
    return this.taken !== this.told && (this.received - this.told) >>> 0 >= Math.min(this.bufferBytes, guestBufferBytes)
  }

  snapshot() {
    const { bufferBytes, received, taken, told } = this
    return { bufferBytes, received, taken, told }
  }

  /** A packet goes out, and each one tells. */
  tell(header: PacketHeader): void {
    header.bufferAllocation = this.bufferBytes
    header.forwardCount = this.taken
    this.told = this.taken
    this.tellAt = NEVER
  }

  /** True once `tellAt` has come. */
  wake(now: number): boolean {
    if (now < this.tellAt) return false
    this.tellAt = NEVER
    return true
  }
}

/**
 * Asking the guest for credit. `rested`: it has not been asked since it last gave credit. `asked`: the next time is at `until`, `ms`
 * after the last. `due`: that time has come.
 */
type Asking = { readonly kind: 'rested' } | { readonly kind: 'asked'; readonly ms: number; readonly until: number } | Due
interface Due {
  readonly kind: 'due'
  readonly ms: number
}

const RESTED: Asking = { kind: 'rested' }

/** The credit that the host has in the guest: what was sent, in bytes and in packets, and what the guest last told of its buffer. */
export class GuestCredit {
  bufferBytes: number
  taken: number
  sent = 0
  readonly #packets = new PacketWindow()
  /** Bytes of the message that is under way. */
  #ofMessage = 0
  #asking: Asking = RESTED

  constructor(bufferBytes: number, taken: number) {
    this.bufferBytes = bufferBytes
    this.taken = taken
  }

  /** How many bytes the guest can still take. Nonsense from the guest makes it 0: that starves the guest alone. */
  get available(): number {
    const { underWay } = this
    if (underWay >= this.bufferBytes || (this.#packets.size >= packetLimit(this.bufferBytes) && this.#waitsForPackets)) return 0
    return this.bufferBytes - underWay
  }

  /** Bytes that were sent and that the guest has not taken yet, by its own word. */
  get underWay(): number {
    return (this.sent - this.taken) >>> 0
  }

  /** Whether the guest may take a packet of those under way. It takes none of a message of which the end is missing. */
  get #waitsForPackets(): boolean {
    return this.#ofMessage < this.underWay || this.#packets.size >= MAX_PACKETS
  }

  /** How many packets of a stream the guest can take besides those under way. */
  get packetsAvailable(): number {
    return Math.max(0, packetLimit(this.bufferBytes) - this.#packets.size)
  }

  /** Packets that were sent and that the guest has not taken yet. */
  get packets(): number {
    return this.#packets.size
  }

  /** A packet of `length` bytes leaves. @param ends a reader can take it by itself: it is of a stream, or ends a message. */
  send(length: number, ends = true): void {
    this.sent = (this.sent + length) >>> 0
    this.#packets.add(this.sent)
    this.#ofMessage = ends ? 0 : this.#ofMessage + length
  }

  /** What every packet of the guest says about its buffer. True if the buffer has become smaller. */
  hear(bufferBytes: number, taken: number): boolean {
    const smaller = bufferBytes < this.bufferBytes
    this.bufferBytes = bufferBytes
    this.taken = taken
    this.#packets.taken(taken)
    if (this.#asking !== RESTED && this.available > 0) this.rest()
    return smaller
  }

  /** Whether to ask the guest for credit now: at once, and then each time the wait is over. */
  get asks(): boolean {
    return this.#asking.kind !== 'asked'
  }

  /** The guest was asked and has not given any since. */
  get asked(): boolean {
    return this.#asking.kind !== 'rested'
  }

  /** When `wake` wants to be called. */
  get askAt(): number {
    return this.#asking.kind === 'asked' ? this.#asking.until : NEVER
  }

  /**
   * The guest is asked. Linux tells by itself only when less than 64 KiB of its buffer are free, and a guest whose packets, and not its
   * bytes, are used up says nothing when it reads them. So it is asked again and again, ever more rarely.
   */
  ask(now: number): void {
    const ms = this.#asking.kind === 'rested' ? FIRST_ASK_MS : Math.min(this.#asking.ms * 2, LONGEST_ASK_MS)
    this.#asking = { kind: 'asked', ms, until: now + ms }
  }

  snapshot() {
    const { bufferBytes, sent, taken, packets, asked } = this
    return { bufferBytes, sent, taken, packets, asked }
  }

  /** Nothing waits for credit. */
  rest(): void {
    this.#asking = RESTED
  }

  wake(now: number): void {
    if (this.#asking.kind === 'asked' && now >= this.#asking.until) this.#asking = { kind: 'due', ms: this.#asking.ms }
  }
}
