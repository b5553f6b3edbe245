import { transition } from '@upcall/foundation/machine'
import type { Chain } from './chain.js'
import type { Connection, ConnectionEnds, ConnectionOptions, ConnectionSnapshot, ConnectionState } from './connection-view.js'
import { GuestCredit, HostCredit } from './credit.js'
import { DirectPath, type DirectPort } from './direct.js'
import { ASKING_FOR_CREDIT, DueSet, HANDSHAKE, WAITING_FOR_CREDIT, WITH_CREDIT, WITHOUT_BYTES } from './due.js'
import {
  type ConnectionOutcome,
  connectionTable,
  guestShutdown,
  type Life,
  type LifeContext,
  type LifeEvent,
  until,
  wasOpen,
} from './life.js'
import { MessageBuffer, type ReceivedMessage } from './message-buffer.js'
import { MessageQueue, type OutgoingMessage } from './message-queue.js'
import { OutputQueue } from './output-queue.js'
import { Op, type PacketHeader, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, type SocketType } from './packet.js'
import { ReceiveBuffer } from './receive-buffer.js'

export type * from './connection-view.js'

/**
 * One vsock connection, seen from the host: a pure machine. Packets, the owner's acts and the time go in; packets come out of `next`.
 * Its life is a table (life.ts). Bytes and credit, the hot path, are handled here.
 */
export class VsockConnection implements Connection {
  readonly hostCid: number
  readonly hostPort: number
  readonly guestPort: number
  readonly type: SocketType
  /** There is news for the owner. The muxer clears it. */
  changed = false

  #state: Life
  readonly #life: LifeContext
  readonly #options: ConnectionOptions
  readonly #due = new DueSet()
  readonly #input: ReceiveBuffer | MessageBuffer
  readonly #output: OutputQueue | MessageQueue
  readonly #direct = new DirectPath()
  readonly #hostCredit: HostCredit
  readonly #guestCredit: GuestCredit
  /** The flags of SHUTDOWN that the owner wants sent. */
  #shutdown = 0

  /** @param request the guest's REQUEST; undefined for a connection that the host begins. */
  constructor(ends: ConnectionEnds, options: ConnectionOptions, now: number, request?: Readonly<PacketHeader>) {
    this.hostCid = ends.hostCid
    this.hostPort = ends.hostPort
    this.guestPort = ends.guestPort
    this.type = ends.type
    this.#options = options
    this.#life = { now, effects: [], lingerMs: options.lingerMs, sent: 0 }
    this.#input = ends.type === 'stream' ? new ReceiveBuffer(options.allocate) : new MessageBuffer(options.allocate)
    this.#output = ends.type === 'stream' ? new OutputQueue() : new MessageQueue()
    this.#hostCredit = new HostCredit(options.bufferBytes)
    this.#guestCredit = new GuestCredit(request?.bufferAllocation ?? 0, request?.forwardCount ?? 0)
    const deadline = now + options.handshakeMs
    if (request === undefined) {
      this.#state = { kind: 'connecting', until: deadline, requested: false }
      this.#due.add(Op.REQUEST)
    } else {
      this.#state = { kind: 'accepting', until: deadline }
      this.changed = true
    }
  }

  // ── for the owner ──────────────────────────────────────────────────────────────────────────────────────────────────────

  get state(): ConnectionState {
    return this.#state.kind === 'draining' ? 'open' : this.#state.kind
  }

  get outcome(): ConnectionOutcome | undefined {
    return this.#state.kind === 'closed' ? this.#state.outcome : undefined
  }

  get opened(): boolean {
    return wasOpen(this.#state)
  }

  get inputEnded(): boolean {
    return this.#state.kind === 'closed' || this.inputComplete
  }

  get inputComplete(): boolean {
    return (guestShutdown(this.#state) & SHUTDOWN_SEND) !== 0
  }

  get inputPending(): number {
    return this.#input.length
  }

  get inputMessages(): number {
    return this.#input instanceof MessageBuffer ? this.#input.count : 0
  }

  get outputRefused(): boolean {
    const { kind } = this.#state
    return kind === 'closed' || kind === 'closing' || (guestShutdown(this.#state) & SHUTDOWN_RECEIVE) !== 0
  }

  get outputPending(): number {
    return this.#output.length
  }

  get outputLost(): boolean {
    return this.#output.lost
  }

  get maxMessageBytes(): number {
    return Math.min(this.#guestCredit.bufferBytes, this.#options.bufferBytes)
  }

  read(): Uint8Array | undefined {
    return this.#input instanceof ReceiveBuffer ? this.#input.take() : undefined
  }

  readMessage(): ReceivedMessage | undefined {
    return this.#input instanceof MessageBuffer ? this.#input.take() : undefined
  }

  consumed(count: number, now: number): void {
    if (count <= 0) return
    this.#hostCredit.take(count)
    if (this.#state.kind === 'open') this.#giveCredit(now)
    else if (this.#state.kind === 'draining') this.#step({ type: 'taken', all: this.#hostCredit.drained }, now)
  }

  write(chunk: Uint8Array): void {
    if (chunk.length === 0 || !(this.#output instanceof OutputQueue) || !this.#takesOutput) return
    this.#output.push(chunk)
    this.#due.add(Op.RW)
    this.#due.add(Op.CREDIT_REQUEST)
  }

  send(message: OutgoingMessage): void {
    if (!(this.#output instanceof MessageQueue)) return
    if (!this.#takesOutput) {
      message.state = 'lost'
      return
    }
    this.#output.push(message)
    this.#due.add(Op.RW)
    this.#due.add(Op.CREDIT_REQUEST)
  }

  withdraw(message: OutgoingMessage): void {
    if (!(this.#output instanceof MessageQueue)) return
    this.#output.withdraw(message)
    if (this.#output.length === 0) this.#outputIsOut()
  }

  attach(port: DirectPort | undefined): void {
    this.#direct.port = port
    if (this.#output.length === 0) this.#outputIsOut()
  }

  arrived(): void {
    if (this.#shutdown !== 0 || this.outputRefused || !this.#direct.open) return
    this.#direct.arrived = true
    this.#due.add(Op.RW)
    this.#due.add(Op.CREDIT_REQUEST)
  }

  end(): void {
    if (this.#shutdown !== 0 || this.#state.kind === 'closed') return
    this.#shutdown = SHUTDOWN_SEND
    this.#due.add(Op.SHUTDOWN)
  }

  accept(): void {
    if (this.#state.kind === 'accepting') this.#step({ type: 'accept' })
  }

  close(now: number): void {
    this.#step({ type: 'close', unsent: this.#output.length > 0 }, now)
  }

  reset(): void {
    this.#step({ type: 'abort' })
  }

  // ── for the muxer ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** When `wake` wants to be called. */
  get wakeAt(): number {
    return Math.min(until(this.#state), this.#hostCredit.tellAt, this.#guestCredit.askAt)
  }

  wake(now: number): void {
    if (this.#hostCredit.wake(now)) this.#due.add(Op.CREDIT_UPDATE)
    this.#guestCredit.wake(now)
    if (now >= until(this.#state)) this.#step({ type: 'wake' }, now)
  }

  /** Takes a packet of this connection. `chain` is positioned at its payload and holds at least `header.length` bytes of it. */
  receive(header: Readonly<PacketHeader>, chain: Chain, now: number): void {
    const smaller = this.#guestCredit.hear(header.bufferAllocation, header.forwardCount)
    if (smaller) this.#shrink(now)
    switch (header.op) {
      case Op.RW:
      case Op.CREDIT_UPDATE:
      case Op.CREDIT_REQUEST:
        if (this.#state.kind === 'open' || this.#state.kind === 'draining') this.#receiveData(header, chain, now)
        else this.#step({ type: 'data' }, now)
        return
      case Op.RESPONSE:
        this.#step({ type: 'response' }, now)
        return
      case Op.RST:
        this.#step({ type: 'rst' }, now)
        return
      case Op.SHUTDOWN:
        if ((header.flags & SHUTDOWN_SEND) !== 0 && this.#input instanceof MessageBuffer)
          this.#hostCredit.take(this.#input.dropUnfinished())
        this.#step({ type: 'shutdown', flags: header.flags, taken: this.#hostCredit.drained }, now)
        return
      default:
        this.#step({ type: 'violation' }, now)
    }
  }

  /** Whether `next` has a packet. */
  get sendable(): boolean {
    return this.#nextOp !== Op.INVALID
  }

  /**
   * Decides the next packet: fills `header` and returns how many bytes of payload (at most `room`) belong to it, to be had by
   * `copyOutput`. Only to be called while `sendable`.
   */
  next(header: PacketHeader, room: number, now: number): number {
    const op = this.#nextOp
    header.sourcePort = this.hostPort
    header.destinationPort = this.guestPort
    header.op = op
    header.flags = 0
    header.length = 0
    switch (op) {
      case Op.RW: {
        const from = this.#direct.placed > 0 ? this.#direct : this.#output
        const ends = from.describe(header, Math.min(room, this.#guestCredit.available))
        this.#guestCredit.send(header.length, ends)
        break
      }
      case Op.CREDIT_REQUEST:
        if (!this.#guestCredit.asked && this.#options.tally !== undefined) this.#options.tally.creditStalls++
        this.#guestCredit.ask(now)
        break
      case Op.SHUTDOWN:
        this.#life.sent |= this.#shutdown
        header.flags = this.#life.sent
        this.#due.delete(op)
        break
      default:
        this.#due.delete(op)
        // A guest that guesses the port may answer before it is asked.
        if (op === Op.REQUEST && this.#state.kind === 'connecting') this.#step({ type: 'requested' })
    }
    this.#hostCredit.tell(header)
    this.#due.delete(Op.CREDIT_UPDATE)
    return header.length
  }

  /** How many chains `readAhead` could fill now. */
  get burst(): number {
    return this.#output.length === 0 && this.#nextOp === Op.RW ? this.#direct.burst(this.#guestCredit) : 0
  }

  /** Fills chains straight from the port. The result is how many have bytes: each goes to `next`, with `filled` for its room. */
  readAhead(chains: readonly Chain[], count: number): number {
    const used = this.#direct.fill(chains, count, this.#guestCredit.available)
    this.#outputIsOut()
    return used
  }

  /** Moves `length` bytes of what was written into `chain`. */
  copyOutput(chain: Chain, length: number): void {
    if (this.#output.moveTo(chain, length) === true) this.changed = true
    if (this.#output.length > 0) return
    this.#outputIsOut()
    this.changed = true
  }

  /** How things stand with it, as plain data. */
  snapshot(): ConnectionSnapshot {
    const { hostPort, guestPort, type, state } = this
    const host = { ...this.#hostCredit.snapshot(), waiting: this.#input.length }
    const guest = { ...this.#guestCredit.snapshot(), waiting: this.#output.length }
    return { hostPort, guestPort, type, state, host, guest }
  }

  /** The device has gone, and every connection with it. No packet is sent, not even a packet that was due before. */
  abandon(): void {
    this.#step({ type: 'abandoned' })
  }

  /** What goes next: the most urgent of what the state and the guest's credit allow. */
  get #nextOp(): number {
    const { kind } = this.#state
    if (kind !== 'open' && kind !== 'draining' && kind !== 'closing') return this.#due.first(HANDSHAKE)
    if (this.#direct.placed > 0) return Op.RW
    if (this.#output.length === 0 && !this.#direct.arrived) return this.#due.first(WITHOUT_BYTES)
    if (this.#guestCredit.available > 0) return this.#due.first(WITH_CREDIT)
    return this.#due.first(this.#guestCredit.asks ? ASKING_FOR_CREDIT : WAITING_FOR_CREDIT)
  }

  /** False, and what was to go out is lost, if the guest or the owner has ended that direction. */
  get #takesOutput(): boolean {
    if ((this.#shutdown & SHUTDOWN_SEND) !== 0) return false
    if (this.outputRefused) this.#output.lost = true
    return !this.outputRefused
  }

  #receiveData({ op, length, flags }: Readonly<PacketHeader>, chain: Chain, now: number): void {
    if (op === Op.CREDIT_REQUEST) this.#due.add(Op.CREDIT_UPDATE)
    if (op !== Op.RW) return
    if (this.inputComplete || !this.#hostCredit.allows(length)) {
      this.#step({ type: 'violation' }, now)
    } else if (this.#input instanceof MessageBuffer) {
      const { count } = this.#input
      this.#input.append(chain, length, flags)
      this.#hostCredit.receive(length)
      if (this.#input.count > count) this.changed = true
      // No credit is left for its end, and the reader takes no part of it: both sides would wait for ever.
      else if (this.#input.unfinished >= this.#options.bufferBytes) this.#step({ type: 'violation' }, now)
      else this.#giveCredit(now)
    } else if (length > 0) {
      this.#hostCredit.receive(length)
      const taken = this.#input.length === 0 ? this.#direct.take(chain, length) : 0
      if (taken > 0) this.consumed(taken, now)
      if (taken === length) return
      this.#input.append(chain, length - taken)
      this.changed = true
    }
  }

  /** The guest's buffer has become smaller. */
  #shrink(now: number): void {
    // What was too little to tell of before may be all that a smaller buffer lets the guest send.
    if (this.#state.kind === 'open') this.#giveCredit(Number.POSITIVE_INFINITY)
    if (!(this.#output instanceof MessageQueue) || this.#output.length === 0) return
    this.changed = true
    if (!this.#output.shrink(this.maxMessageBytes)) this.#step({ type: 'violation' }, now)
    else if (this.#output.length === 0) this.#outputIsOut()
  }

  #giveCredit(now: number): void {
    if (this.inputComplete) return
    const { bufferBytes } = this.#guestCredit
    // No reader takes a part of a message: the guest would wait for `tellAt` with the rest.
    const starves = this.#input instanceof MessageBuffer && this.#input.unfinished > 0 && this.#hostCredit.starves(bufferBytes)
    if (starves || this.#hostCredit.tellNow(bufferBytes, now)) this.#due.add(Op.CREDIT_UPDATE)
  }

  #outputIsOut(): void {
    if (this.#direct.arrived) return
    this.#due.delete(Op.RW)
    this.#due.delete(Op.CREDIT_REQUEST)
    this.#guestCredit.rest()
  }

  #step(event: LifeEvent, now = this.#life.now): void {
    const life = this.#life
    life.now = now
    this.#state = transition(connectionTable, life, this.#state, event)
    for (const effect of life.effects.splice(0)) {
      switch (effect.type) {
        case 'say':
          if (effect.op === Op.SHUTDOWN) this.#shutdown = SHUTDOWN_BOTH
          this.#due.add(effect.op)
          break
        case 'silence':
          this.#direct.arrived = false
          this.#due.clear()
          this.#hostCredit.tellAt = Number.POSITIVE_INFINITY
          this.#output.drop()
          this.#guestCredit.rest()
          break
        case 'dropOutput':
          this.#output.drop()
          this.#direct.arrived = false
          this.#outputIsOut()
          break
        case 'dropInput':
          this.#input.clear()
          this.#hostCredit.tellAt = Number.POSITIVE_INFINITY
          break
        case 'news':
          this.changed = true
      }
    }
  }
}
