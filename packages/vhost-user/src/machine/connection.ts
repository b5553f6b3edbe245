import { transition } from '@upcall/foundation/machine'
import type { Chain } from './chain.js'
import type { Connection, ConnectionOptions, ConnectionPorts, ConnectionSnapshot, ConnectionState } from './connection-view.js'
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
} from './life.js'
import { OutputQueue } from './output-queue.js'
import { Op, type PacketHeader, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './packet.js'
import { ReceiveBuffer } from './receive-buffer.js'

export type * from './connection-view.js'

/**
 * One vsock connection, seen from the host: a pure machine. Packets, the owner's acts and the time go in; packets come out of `next`.
 * Its life is a table (life.ts). Bytes and credit, the hot path, are handled here.
 */
export class VsockConnection implements Connection {
  readonly hostPort: number
  readonly guestPort: number
  /** There is news for the owner. The muxer clears it. */
  changed = false

  #state: Life
  readonly #life: LifeContext
  readonly #options: ConnectionOptions
  readonly #due = new DueSet()
  readonly #input: ReceiveBuffer
  readonly #output = new OutputQueue()
  readonly #direct = new DirectPath()
  readonly #hostCredit: HostCredit
  readonly #guestCredit: GuestCredit
  /** The flags of SHUTDOWN that the owner wants sent. */
  #shutdown = 0

  /** @param request the guest's REQUEST; undefined for a connection that the host begins. */
  constructor(ports: ConnectionPorts, options: ConnectionOptions, now: number, request?: Readonly<PacketHeader>) {
    this.hostPort = ports.hostPort
    this.guestPort = ports.guestPort
    this.#options = options
    this.#life = { now, effects: [], lingerMs: options.lingerMs, sent: 0 }
    this.#input = new ReceiveBuffer(options.allocate)
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

  read(): Uint8Array | undefined {
    return this.#input.take()
  }

  consumed(count: number, now: number): void {
    if (count <= 0) return
    this.#hostCredit.take(count)
    if (this.#state.kind === 'open') this.#giveCredit(now)
    else if (this.#state.kind === 'draining') this.#step({ type: 'taken', all: this.#hostCredit.drained }, now)
  }

  write(chunk: Uint8Array): void {
    if ((this.#shutdown & SHUTDOWN_SEND) !== 0 || chunk.length === 0) return
    if (this.outputRefused) {
      this.#output.lost = true
      return
    }
    this.#output.push(chunk)
    this.#due.add(Op.RW)
    this.#due.add(Op.CREDIT_REQUEST)
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
    // What was too little to tell of before may be all that a smaller buffer lets the guest send.
    if (smaller && this.#state.kind === 'open') this.#giveCredit(Number.POSITIVE_INFINITY)
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
        header.length = Math.min(room, this.#output.length, this.#guestCredit.available)
        this.#guestCredit.send(header.length)
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
    this.#tellCredit(header)
    return header.length
  }

  /** How many chains `fillDirect` could fill now; 0: the next packet is one for `next`. */
  get burst(): number {
    const mayBe = this.#direct.arrived && this.#output.length === 0 && this.#nextOp === Op.RW
    return mayBe ? this.#direct.burst(this.#guestCredit) : 0
  }

  /**
   * Fills chains with bytes straight from the port. The result is how many chains have a packet; `header` is that of all of them, but for
   * the length, which each chain says in `filled`. Only to be called while there is a `burst`.
   */
  fillDirect(header: PacketHeader, chains: readonly Chain[], count: number): number {
    const used = this.#direct.fill(chains, count, this.#guestCredit)
    if (!this.#direct.arrived) this.#outputIsOut()
    if (used === 0) return 0
    header.sourcePort = this.hostPort
    header.destinationPort = this.guestPort
    header.op = Op.RW
    header.flags = 0
    this.#tellCredit(header)
    return used
  }

  /** Moves `length` bytes of what was written into `chain`. */
  copyOutput(chain: Chain, length: number): void {
    this.#output.moveTo(chain, length)
    if (this.#output.length > 0) return
    this.#outputIsOut()
    this.changed = true
  }

  /** How things stand with it, as plain data. */
  snapshot(): ConnectionSnapshot {
    const host = this.#hostCredit
    const guest = this.#guestCredit
    return {
      hostPort: this.hostPort,
      guestPort: this.guestPort,
      state: this.state,
      host: {
        bufferBytes: host.bufferBytes,
        received: host.received,
        taken: host.taken,
        told: host.told,
        waiting: this.#input.length,
      },
      guest: {
        bufferBytes: guest.bufferBytes,
        sent: guest.sent,
        taken: guest.taken,
        packets: guest.packets,
        waiting: this.#output.length,
        asked: guest.asked,
      },
    }
  }

  /** The device has gone, and every connection with it. No packet is sent, not even a packet that was due before. */
  abandon(): void {
    this.#step({ type: 'abandoned' })
  }

  /** What goes next: the most urgent of what the state and the guest's credit allow. */
  get #nextOp(): number {
    const { kind } = this.#state
    if (kind !== 'open' && kind !== 'draining' && kind !== 'closing') return this.#due.first(HANDSHAKE)
    if (this.#output.length === 0 && !this.#direct.arrived) return this.#due.first(WITHOUT_BYTES)
    if (this.#guestCredit.available > 0) return this.#due.first(WITH_CREDIT)
    return this.#due.first(this.#guestCredit.asks ? ASKING_FOR_CREDIT : WAITING_FOR_CREDIT)
  }

  #receiveData({ op, length }: Readonly<PacketHeader>, chain: Chain, now: number): void {
    if (op === Op.CREDIT_REQUEST) this.#due.add(Op.CREDIT_UPDATE)
    if (op !== Op.RW) return
    if (this.inputComplete || !this.#hostCredit.allows(length)) {
      this.#step({ type: 'violation' }, now)
    } else if (length > 0) {
      this.#hostCredit.receive(length)
      const taken = this.#input.length === 0 ? this.#direct.take(chain, length) : 0
      if (taken > 0) this.consumed(taken, now)
      if (taken === length) return
      this.#input.append(chain, length - taken)
      this.changed = true
    }
  }

  #tellCredit(header: PacketHeader): void {
    header.bufferAllocation = this.#options.bufferBytes
    header.forwardCount = this.#hostCredit.taken
    this.#hostCredit.tell()
    this.#due.delete(Op.CREDIT_UPDATE)
  }

  #giveCredit(now: number): void {
    if (this.inputComplete) return
    if (this.#hostCredit.tellNow(this.#guestCredit.bufferBytes, now)) this.#due.add(Op.CREDIT_UPDATE)
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
