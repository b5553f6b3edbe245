import { transition } from '@upcall/foundation/machine'
import type { Chain } from './chain.js'
import type { Connection, ConnectionEnds, ConnectionOptions, ConnectionSnapshot, ConnectionState } from './connection-view.js'
import { GuestCredit, HostCredit } from './credit.js'
import { ASKING_FOR_CREDIT, DueSet, HANDSHAKE, WAITING_FOR_CREDIT, WITH_CREDIT, WITHOUT_BYTES } from './due.js'
import {
  type ConnectionOutcome,
  connectionTable,
  guestShutdown,
  type Life,
  type LifeContext,
  type LifeEvent,
  until,
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
    const state = this.#state
    return state.kind === 'closed' ? state.opened : state.kind !== 'connecting' && state.kind !== 'accepting'
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
      case Op.RW:
        this.#nextData(header, Math.min(room, this.#guestCredit.available))
        break
      case Op.CREDIT_REQUEST:
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
    header.bufferAllocation = this.#options.bufferBytes
    header.forwardCount = this.#hostCredit.taken
    this.#hostCredit.tell()
    this.#due.delete(Op.CREDIT_UPDATE)
    return header.length
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
    if (this.#output.length === 0) return this.#due.first(WITHOUT_BYTES)
    if (this.#guestCredit.available > 0) return this.#due.first(WITH_CREDIT)
    return this.#due.first(this.#guestCredit.asks ? ASKING_FOR_CREDIT : WAITING_FOR_CREDIT)
  }

  #nextData(header: PacketHeader, most: number): void {
    const output = this.#output
    if (output instanceof OutputQueue) {
      header.length = Math.min(most, output.length)
      this.#guestCredit.send(header.length)
    } else {
      header.length = Math.min(most, output.run)
      header.flags = output.flags(header.length)
      this.#guestCredit.send(header.length, header.flags !== 0)
    }
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
      this.#input.append(chain, length)
      this.#hostCredit.receive(length)
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
          this.#due.clear()
          this.#hostCredit.tellAt = Number.POSITIVE_INFINITY
          this.#output.drop()
          this.#guestCredit.rest()
          break
        case 'dropOutput':
          this.#output.drop()
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
