import type { Chain } from '../chain.js'
import type { ConnectionPorts } from '../connection.js'
import { GuestCredit, NEVER } from '../credit.js'
import { DueSet, operations } from '../due.js'
import { Op, type PacketHeader, SEQ_EOM, SHUTDOWN_RECEIVE, TYPE_SEQPACKET } from '../packet.js'
import { PacketQueue } from './packet-queue.js'
import type { Side } from './passage.js'

/** What begins a connection goes before its bytes; the rest after them. */
const BEFORE_BYTES = operations(Op.REQUEST, Op.RESPONSE)
const AFTER_BYTES = operations(Op.RST, Op.SHUTDOWN, Op.CREDIT_UPDATE)
const BYTES = operations(Op.RW)
const CREDIT = operations(Op.CREDIT_UPDATE)

export interface EndAddress extends ConnectionPorts {
  readonly cid: number
  readonly peerCid: number
}

/**
 * One guest's end of a connection with another guest: what waits for this guest, and how much it can take. From here the other guest is in
 * the place of the host, so its port is `hostPort`.
 */
export class SwitchEnd<Port> implements ConnectionPorts {
  readonly cid: number
  readonly guestPort: number
  readonly peerCid: number
  readonly hostPort: number
  readonly queue = new PacketQueue()
  readonly #due = new DueSet()
  /** What this guest told of its buffer. */
  readonly #credit: GuestCredit
  #largestBuffer: number
  /** Flags of SHUTDOWN that the other guest has sent and this one has yet to get. */
  #shutdown = 0
  /** The other guest asks for this one's credit. */
  #creditAsked = false
  /** This guest takes no more bytes. */
  #deaf = false
  /** What waits is dropped then, so that the RST after it can leave. */
  #dropAt = NEVER

  constructor(
    readonly port: Port,
    readonly side: Side,
    readonly type: number,
    { cid, guestPort, peerCid, hostPort }: EndAddress,
    buffer: Pick<PacketHeader, 'bufferAllocation' | 'forwardCount'> | undefined,
  ) {
    this.cid = cid
    this.guestPort = guestPort
    this.peerCid = peerCid
    this.hostPort = hostPort
    this.#credit = new GuestCredit(buffer?.bufferAllocation ?? 0, buffer?.forwardCount ?? 0)
    this.#largestBuffer = this.#credit.bufferBytes
  }

  // ── what its guest says ────────────────────────────────────────────────────────────────────────────────────────────────

  /** Every packet tells of the guest's buffer. */
  hear({ bufferAllocation, forwardCount }: Readonly<PacketHeader>): void {
    this.#credit.hear(bufferAllocation, forwardCount)
    if (bufferAllocation > this.#largestBuffer) this.#largestBuffer = bufferAllocation
  }

  /** Puts into a packet for the other guest what it is to know of this one's buffer. */
  tell(header: PacketHeader): void {
    header.bufferAllocation = this.#credit.bufferBytes
    header.forwardCount = this.#credit.taken
  }

  /** The guest takes no more bytes. Returns what dropping those that wait frees. */
  deafen(): number {
    this.#deaf = true
    return this.#drop()
  }

  // ── what the other guest says ──────────────────────────────────────────────────────────────────────────────────────────

  /** Whether the other guest may send `length` bytes. A buffer that was larger before may have been filled then. */
  allows(length: number): boolean {
    return this.#deaf || this.#credit.underWay + this.queue.length + length <= this.#largestBuffer
  }

  /** Queues bytes for this guest and returns what they cost the sender. */
  push(payload: Uint8Array, flags: number): number {
    if (this.#deaf) return 0
    this.#due.add(Op.RW)
    return this.queue.push(payload, flags)
  }

  /** Bytes for a guest that takes none need not be copied. */
  get deaf(): boolean {
    return this.#deaf
  }

  say(op: number): void {
    if (op === Op.CREDIT_REQUEST) this.#creditAsked = true
    else this.#due.add(op)
  }

  sayShutdown(flags: number): void {
    this.#shutdown |= flags
    this.#due.add(Op.SHUTDOWN)
  }

  /** A RST is the last thing to be said, after the bytes that wait, and without them once it is `dropAt`. */
  reset(dropAt: number): void {
    this.#creditAsked = false
    this.#due.delete(Op.SHUTDOWN)
    this.#due.delete(Op.CREDIT_UPDATE)
    this.#due.add(Op.RST)
    if (this.queue.length > 0) this.#dropAt = dropAt
  }

  /** Nothing more is to be said. Returns what that frees. */
  silence(): number {
    this.#due.clear()
    this.#creditAsked = false
    return this.#drop()
  }

  /** The guest has yet to get the REQUEST: it knows nothing of the connection. */
  get unknown(): boolean {
    return this.#due.first(BEFORE_BYTES) === Op.REQUEST
  }

  // ── for the port ───────────────────────────────────────────────────────────────────────────────────────────────────────

  get sendable(): boolean {
    return this.#nextOp !== Op.INVALID
  }

  get wakeAt(): number {
    return Math.min(this.#credit.askAt, this.#dropAt)
  }

  /** Returns what it frees. */
  wake(now: number): number {
    this.#credit.wake(now)
    return now >= this.#dropAt ? this.#drop() : 0
  }

  /** Fills all of `header` but the credit, which is the other guest's, and returns how much payload belongs to the packet. */
  next(header: PacketHeader, room: number, now: number): number {
    const op = this.#nextOp
    header.sourceCid = this.peerCid
    header.sourcePort = this.hostPort
    header.destinationCid = this.cid
    header.destinationPort = this.guestPort
    header.type = this.type
    header.op = op
    header.flags = 0
    header.length = 0
    switch (op) {
      case Op.RW:
        this.#nextBytes(header, Math.min(room, this.#credit.available))
        break
      case Op.CREDIT_REQUEST:
        if (this.queue.length > 0) this.#credit.ask(now)
        this.#creditAsked = false
        break
      case Op.SHUTDOWN:
        header.flags = this.#shutdown
        this.#shutdown = 0
        this.#due.delete(op)
        break
      default:
        this.#due.delete(op)
    }
    return header.length
  }

  /** Moves the bytes of the packet into `chain` and returns what that frees. */
  moveBytes(chain: Chain, length: number): number {
    const freed = this.queue.moveTo(chain, length)
    if (this.queue.length === 0) this.#bytesAreOut()
    return freed
  }

  #nextBytes(header: PacketHeader, room: number): void {
    const isMessage = this.type === TYPE_SEQPACKET
    if (isMessage) Object.assign(header, this.queue.nextMessagePart(room))
    else header.length = this.queue.nextStreamPart(room)
    // A guest takes a message when all of it is there: its parts do not wait for each other, however many they are.
    this.#credit.send(header.length, !isMessage || (header.flags & SEQ_EOM) !== 0)
  }

  #drop(): number {
    const freed = this.queue.drop()
    this.#bytesAreOut()
    return freed
  }

  #bytesAreOut(): void {
    this.#due.delete(Op.RW)
    this.#credit.rest()
    this.#dropAt = NEVER
  }

  get #nextOp(): number {
    const begin = this.#due.first(BEFORE_BYTES)
    if (begin !== Op.INVALID) return begin
    if (this.queue.length === 0) return this.#creditAsked ? Op.CREDIT_REQUEST : this.#due.first(AFTER_BYTES)
    // "I receive no more" does not wait for the bytes that its sender has sent. "I send no more" does.
    if (this.#shutdown === SHUTDOWN_RECEIVE) return Op.SHUTDOWN
    if (this.#credit.available > 0) return this.#due.first(BYTES)
    return this.#credit.asks ? Op.CREDIT_REQUEST : this.#due.first(CREDIT)
  }
}
