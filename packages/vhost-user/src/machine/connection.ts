import type { Chain } from './chain.js'
import { Op, type PacketHeader, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './packet.js'
import { PacketWindow, packetLimit } from './packet-window.js'
import { type Allocate, ReceiveBuffer } from './receive-buffer.js'

/**
 * One vsock connection, seen from the host (virtio 1.2, 5.10.6). A pure machine: packets, bytes and the time go in; packets come out
 * of `next`; what its owner must know is in its fields, and `changed` says when to look.
 *
 * ```
 *  connect(): connecting ── RESPONSE ──▶ open ── close(), SHUTDOWN(both) ──▶ closing ── RST, linger ──▶ closed
 *  REQUEST:   accepting ─── accept() ──▶ open ── RST, or SHUTDOWN(both) and all bytes taken ──▶ closed
 * ```
 *
 * Credit: each side tells how much it buffers (buf_alloc) and how much of what it got has been taken (fwd_cnt); the other may have
 * buf_alloc bytes under way beyond that. All counters are 32 bits wide and wrap.
 */
export type ConnectionState = 'connecting' | 'accepting' | 'open' | 'closing' | 'closed'

/**
 * How it ended, once `closed` or when the guest has gone: `refused` (nobody listens), `timeout` (the guest did not answer, or
 * never took our SHUTDOWN), `reset` (RST before both sides had ended), `violation` (the guest broke the rules and was reset), `done` (an orderly end: each side's kernel has
 * everything that the other side sent), `aborted` (by our own side).
 */
export type ConnectionOutcome = 'refused' | 'timeout' | 'reset' | 'violation' | 'done' | 'aborted'

export interface ConnectionOptions {
  /** Credit given to the guest, in bytes: how much of what it sent may be waiting here. */
  readonly bufferBytes: number
  readonly handshakeMs: number
  /** How long an orderly end may take before it becomes a reset. */
  readonly lingerMs: number
  readonly allocate: Allocate
}

export interface ConnectionPorts {
  readonly hostPort: number
  readonly guestPort: number
}

/** The credit of both sides of a connection. Counters are in bytes, 32 bits wide, and wrap. */
export interface ConnectionSnapshot {
  readonly hostPort: number
  readonly guestPort: number
  readonly state: ConnectionState
  /** What came from the guest: received, taken from here by the reader, told to the guest as taken; and what waits for the reader. */
  readonly host: {
    readonly bufferBytes: number
    readonly received: number
    readonly taken: number
    readonly told: number
    readonly waiting: number
  }
  /**
   * What goes to the guest: its buffer and what it has taken, by its own last word; what was sent; how many packets of that it has yet to
   * take; bytes that wait for credit; whether the guest was asked for credit and has not given any.
   */
  readonly guest: {
    readonly bufferBytes: number
    readonly sent: number
    readonly taken: number
    readonly packets: number
    readonly waiting: number
    readonly asked: boolean
  }
}

/** The guest is told of its credit at once when so large a part of its window was taken since it was last told. */
const CREDIT_PART = 2
/** Below that part, the guest is told after this time, in milliseconds, unless another packet tells it earlier. */
const CREDIT_DELAY_MS = 20
/** How long a connection without credit waits before it asks again, in milliseconds: twice as long each time, up to the longest. */
const FIRST_ASK_MS = 10
const LONGEST_ASK_MS = 500

const NEVER = Number.POSITIVE_INFINITY

export class VsockConnection {
  readonly hostPort: number
  readonly guestPort: number
  readonly initiator: 'host' | 'guest'
  state: ConnectionState
  outcome: ConnectionOutcome | undefined
  /** The guest has let us in, whatever came afterwards. */
  answered = false
  /** There is news for the owner. */
  changed = false
  /** Bookkeeping of the muxer: in its list of those with something to send, and of those with news. */
  queued = false
  listed = false
  /** Bytes for the guest were dropped because it takes no more: it shut its receiving half, or is gone. */
  outputLost = false

  readonly #options: ConnectionOptions
  readonly #input: ReceiveBuffer
  /** Bytes for the guest: chunks, which of them is the first, and how much of that is already on its way. (Shifting a long array is slow.) */
  #output: Uint8Array[] = []
  #outputFirst = 0
  #outputOffset = 0
  #outputLength = 0
  #ended = false
  /** SHUTDOWN flags that the guest sent, that we sent, and that we have yet to send. */
  #guestShutdown = 0
  #sentShutdown = 0
  #wantedShutdown = 0
  /** A packet of the handshake or a reset that is due. */
  #due: number = Op.INVALID
  #creditUpdateDue = false
  /** When the handshake or the end has taken too long. */
  #deadline: number
  /** When the guest is told of its credit at the latest. */
  #tellAt = NEVER
  /** How the guest is asked for credit: when next, and how long after that once more. */
  #askAt = NEVER
  #askMs = 0
  #askDue = false
  // Credit towards the guest: what we sent, in bytes and in packets, and the last that the guest told.
  #sent = 0
  readonly #packets = new PacketWindow()
  #guestAllocation: number
  #guestForwarded: number
  // Credit towards us: what came, what was taken, and what the guest knows of that.
  #received = 0
  #forwarded = 0
  #advertised = 0

  constructor(ports: ConnectionPorts, options: ConnectionOptions, now: number, request?: Readonly<PacketHeader>) {
    this.hostPort = ports.hostPort
    this.guestPort = ports.guestPort
    this.#options = options
    this.#input = new ReceiveBuffer(options.allocate)
    this.initiator = request === undefined ? 'host' : 'guest'
    this.state = request === undefined ? 'connecting' : 'accepting'
    this.#due = request === undefined ? Op.REQUEST : Op.INVALID
    this.#guestAllocation = request?.bufferAllocation ?? 0
    this.#guestForwarded = request?.forwardCount ?? 0
    this.#deadline = now + options.handshakeMs
  }

  // ── for the owner ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** When `handleTimeout` wants to be called. */
  get deadline(): number {
    return Math.min(this.#deadline, this.#tellAt, this.#askAt)
  }

  /** The guest will send nothing more; what `read` still yields comes before the end. */
  get inputEnded(): boolean {
    return (
      this.state !== 'connecting' &&
      this.state !== 'accepting' &&
      (this.state === 'closed' || (this.#guestShutdown & SHUTDOWN_SEND) !== 0)
    )
  }

  /** The guest has said that it sends nothing more, whatever came afterwards: what it sent is complete. */
  get inputComplete(): boolean {
    return (this.#guestShutdown & SHUTDOWN_SEND) !== 0
  }

  /** The guest takes no more bytes: writing is pointless. */
  get outputRefused(): boolean {
    return this.state === 'closed' || this.state === 'closing' || (this.#guestShutdown & SHUTDOWN_RECEIVE) !== 0
  }

  /** Bytes written that the guest has no buffer for yet. */
  get outputPending(): number {
    return this.#outputLength
  }

  /** Bytes received that `read` has not yielded yet. */
  get inputPending(): number {
    return this.#input.length
  }

  /** The next bytes from the guest. They count as taken only once `consumed` says so. */
  read(): Uint8Array | undefined {
    return this.#input.take()
  }

  /** `count` more bytes have left our hands; the guest gets credit for them. */
  consumed(count: number, now: number): void {
    if (count <= 0) return
    this.#forwarded = (this.#forwarded + count) >>> 0
    if (this.state === 'open') {
      this.#tell(now)
      this.#settle(now)
    }
  }

  /** Queues bytes for the guest. They are not copied before a guest buffer takes them: leave them alone until `outputPending` is 0. */
  write(chunk: Uint8Array): void {
    if (this.#ended || chunk.length === 0) return
    if (this.outputRefused) {
      this.outputLost = true
      return
    }
    this.#output.push(chunk)
    this.#outputLength += chunk.length
  }

  /** No more bytes for the guest: SHUTDOWN(send) once the queued ones are out. */
  end(): void {
    if (this.#ended || this.state === 'closed' || this.state === 'closing') return
    this.#ended = true
    this.#wantedShutdown |= SHUTDOWN_SEND
  }

  /** Lets the guest in. */
  accept(): void {
    if (this.state !== 'accepting') return
    this.state = 'open'
    this.#deadline = NEVER
    this.#due = Op.RESPONSE
  }

  /** Our side is through: an orderly end if everything written is out, otherwise a reset. */
  close(now: number): void {
    if (this.state === 'closed' || this.state === 'closing') return
    if (this.state !== 'open' || this.#outputLength > 0) {
      this.reset()
    } else if (this.#guestShutdown === SHUTDOWN_BOTH) {
      this.#finish('done', true)
    } else {
      this.state = 'closing'
      this.#wantedShutdown = SHUTDOWN_BOTH
      this.#input.clear()
      this.#tellAt = NEVER
      this.#deadline = now + this.#options.lingerMs
    }
  }

  /** Ends it at once. */
  reset(): void {
    if (this.state === 'closed') return
    // A REQUEST that never left needs no reset.
    this.#finish('aborted', this.#due !== Op.REQUEST)
    this.#input.clear()
  }

  handleTimeout(now: number): void {
    if (now >= this.#tellAt) {
      this.#tellAt = NEVER
      this.#creditUpdateDue = true
    }
    if (now >= this.#askAt) {
      this.#askAt = NEVER
      this.#askDue = true
    }
    if (now < this.#deadline) return
    if (this.state === 'connecting' || this.state === 'accepting') this.#finish('timeout', this.#due !== Op.REQUEST)
    else if (this.state === 'closing' && this.#sentShutdown !== SHUTDOWN_BOTH) this.#finish('timeout', true)
    // What was sent is in the guest, whose program may be slow; what came is here.
    else this.#finish('done', true)
  }

  // ── for the muxer ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes a packet of this connection. `chain` is positioned at its payload and holds at least `header.length` bytes of it. */
  receive(header: Readonly<PacketHeader>, chain: Chain, now: number): void {
    this.#hear(header)
    if (header.op === Op.RST) {
      this.#onReset()
      return
    }
    switch (this.state) {
      case 'connecting':
        if (header.op === Op.RESPONSE) {
          this.state = 'open'
          this.answered = true
          this.#deadline = NEVER
          this.changed = true
        } else {
          this.#violation()
        }
        return
      case 'accepting':
        this.#violation()
        return
      case 'open':
        this.#receiveOpen(header, chain, now)
        return
      case 'closing':
        // Bytes that crossed our SHUTDOWN are nobody's. The guest's own SHUTDOWN of both, in one or in two, is the other half of the end.
        if (header.op === Op.SHUTDOWN) this.#guestShutdown |= header.flags & SHUTDOWN_BOTH
        if (this.#guestShutdown === SHUTDOWN_BOTH) this.#finish('done', true)
        return
      case 'closed':
        return
    }
  }

  /** Whether `next` has a packet. */
  get sendable(): boolean {
    if (this.#due !== Op.INVALID) return true
    if (this.state !== 'open' && this.state !== 'closing') return false
    if (this.#creditUpdateDue) return true
    if (this.#outputLength > 0) return this.#credit() > 0 || this.#asks
    return (this.#wantedShutdown & ~this.#sentShutdown) !== 0
  }

  /**
   * Decides the next packet: fills `header` and returns how many bytes of payload (at most `room`) belong to it, to be had by `copyOutput`.
   * Only to be called while `sendable`.
   */
  next(header: PacketHeader, room: number, now: number): number {
    header.sourcePort = this.hostPort
    header.destinationPort = this.guestPort
    header.flags = 0
    header.length = 0
    header.op = this.#nextOp(now)
    if (header.op === Op.RW) {
      header.length = Math.min(room, this.#outputLength, this.#credit())
      this.#sent = (this.#sent + header.length) >>> 0
      this.#packets.add(this.#sent)
    } else if (header.op === Op.SHUTDOWN) {
      this.#sentShutdown |= this.#wantedShutdown
      header.flags = this.#sentShutdown
    }
    header.bufferAllocation = this.#options.bufferBytes
    header.forwardCount = this.#forwarded
    this.#advertised = this.#forwarded
    this.#creditUpdateDue = false
    this.#tellAt = NEVER
    return header.length
  }

  /** Moves `length` bytes of what was written into `chain`. */
  copyOutput(chain: Chain, length: number): void {
    let left = length
    while (left > 0) {
      const chunk = this.#output[this.#outputFirst]!
      const n = Math.min(left, chunk.length - this.#outputOffset)
      chain.write(chunk, this.#outputOffset, n)
      left -= n
      this.#outputOffset += n
      if (this.#outputOffset === chunk.length) {
        this.#outputFirst++
        this.#outputOffset = 0
      }
    }
    this.#outputLength -= length
    if (this.#outputLength > 0) return
    this.#dropOutput()
    this.changed = true
  }

  /** How things stand with it, as plain data. */
  snapshot(): ConnectionSnapshot {
    return {
      hostPort: this.hostPort,
      guestPort: this.guestPort,
      state: this.state,
      host: {
        bufferBytes: this.#options.bufferBytes,
        received: this.#received,
        taken: this.#forwarded,
        told: this.#advertised,
        waiting: this.#input.length,
      },
      guest: {
        bufferBytes: this.#guestAllocation,
        sent: this.#sent,
        taken: this.#guestForwarded,
        packets: this.#packets.size,
        waiting: this.#outputLength,
        asked: this.#askMs > 0,
      },
    }
  }

  /** The device has gone, and every connection with it. No packet is sent. */
  abandon(): void {
    this.#finish(this.#orderly ? 'done' : 'reset', false)
    // Nor one that was due before.
    this.#due = Op.INVALID
  }

  /** Whether a reset would cut nothing short: both sides have ended, or the guest has closed. */
  get #orderly(): boolean {
    if (this.#guestShutdown === SHUTDOWN_BOTH || this.#sentShutdown === SHUTDOWN_BOTH) return true
    return (this.#guestShutdown & SHUTDOWN_SEND) !== 0 && (this.#sentShutdown & SHUTDOWN_SEND) !== 0
  }

  #nextOp(now: number): number {
    const due = this.#due
    if (due !== Op.INVALID) {
      this.#due = Op.INVALID
      return due
    }
    if (this.#outputLength > 0) {
      if (this.#credit() > 0) return Op.RW
      // Linux tells by itself only when less than 64 KiB of its buffer are free. A guest whose packets, and not its bytes, are used up
      // says nothing when it reads them, so it is asked again and again, ever more rarely.
      if (this.#asks) {
        this.#askMs = Math.min(this.#askMs === 0 ? FIRST_ASK_MS : this.#askMs * 2, LONGEST_ASK_MS)
        this.#askAt = now + this.#askMs
        this.#askDue = false
        return Op.CREDIT_REQUEST
      }
    } else if ((this.#wantedShutdown & ~this.#sentShutdown) !== 0) {
      return Op.SHUTDOWN
    }
    return Op.CREDIT_UPDATE
  }

  #receiveOpen(header: Readonly<PacketHeader>, chain: Chain, now: number): void {
    switch (header.op) {
      case Op.RW: {
        const waiting = (this.#received - this.#forwarded) >>> 0
        if ((this.#guestShutdown & SHUTDOWN_SEND) !== 0 || waiting + header.length > this.#options.bufferBytes) {
          this.#violation()
        } else if (header.length > 0) {
          this.#input.append(chain, header.length)
          this.#received = (this.#received + header.length) >>> 0
          this.changed = true
        }
        return
      }
      case Op.CREDIT_UPDATE:
        return
      case Op.CREDIT_REQUEST:
        this.#creditUpdateDue = true
        return
      case Op.SHUTDOWN:
        this.#guestShutdown |= header.flags & SHUTDOWN_BOTH
        if ((this.#guestShutdown & SHUTDOWN_RECEIVE) !== 0) this.#dropOutput()
        if (this.#guestShutdown === SHUTDOWN_BOTH && this.#deadline === NEVER) this.#deadline = now + this.#options.lingerMs
        this.changed = true
        this.#settle(now)
        return
      default:
        this.#violation()
    }
  }

  /** After SHUTDOWN(both): once everything that came has been taken, say so with a RST. */
  #settle(now: number): void {
    if (
      this.state === 'open' &&
      this.#guestShutdown === SHUTDOWN_BOTH &&
      (this.#received === this.#forwarded || now >= this.#deadline)
    ) {
      this.#finish('done', true)
    }
  }

  #onReset(): void {
    if (this.state === 'closed') {
      this.#due = Op.INVALID
    } else if (this.state === 'connecting') {
      this.#finish('refused', false)
    } else {
      this.#finish(this.#orderly ? 'done' : 'reset', false)
    }
  }

  #violation(): void {
    this.#finish('violation', true)
  }

  /** Bytes that have come stay readable: only `reset` and `close` throw them away. */
  #finish(outcome: ConnectionOutcome, sendReset: boolean): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    this.outcome = outcome
    this.#deadline = this.#tellAt = this.#askAt = NEVER
    this.#due = sendReset ? Op.RST : Op.INVALID
    this.#creditUpdateDue = false
    this.#dropOutput()
    this.changed = true
  }

  #dropOutput(): void {
    if (this.#outputLength > 0) this.outputLost = true
    this.#output = []
    this.#outputFirst = this.#outputOffset = this.#outputLength = 0
    this.#stopAsking()
  }

  /** What every packet of the guest says about its buffer. */
  #hear({ bufferAllocation, forwardCount }: Readonly<PacketHeader>): void {
    const smaller = bufferAllocation < this.#guestAllocation
    this.#guestAllocation = bufferAllocation
    this.#guestForwarded = forwardCount
    this.#packets.taken(forwardCount)
    if (this.#credit() > 0) this.#stopAsking()
    // What was too little to tell of before may be all that a smaller buffer lets the guest send.
    if (smaller && this.state === 'open') this.#tell(NEVER)
  }

  /**
   * Tells the guest of its credit: at once when half of its window has been taken, otherwise soon. The window is the smaller of both
   * buffers: Linux has no more under way than its own socket would take (virtio_transport_tx_buf_size; Debian's 6.1.192 and 6.12.117).
   */
  #tell(now: number): void {
    const untold = (this.#forwarded - this.#advertised) >>> 0
    if (untold === 0 || (this.#guestShutdown & SHUTDOWN_SEND) !== 0) return
    if (untold >= Math.min(this.#options.bufferBytes, this.#guestAllocation) / CREDIT_PART) this.#creditUpdateDue = true
    else if (this.#tellAt === NEVER) this.#tellAt = now + CREDIT_DELAY_MS
  }

  /** Whether the guest is to be asked for credit now: at once, and then each time the wait is over. */
  get #asks(): boolean {
    return this.#askMs === 0 || this.#askDue
  }

  #stopAsking(): void {
    this.#askAt = NEVER
    this.#askMs = 0
    this.#askDue = false
  }

  /** How many bytes the guest can still take. Nonsense from the guest makes it 0: that starves the guest alone. */
  #credit(): number {
    const underWay = (this.#sent - this.#guestForwarded) >>> 0
    if (underWay >= this.#guestAllocation || this.#packets.size >= packetLimit(this.#guestAllocation)) return 0
    return this.#guestAllocation - underWay
  }
}
