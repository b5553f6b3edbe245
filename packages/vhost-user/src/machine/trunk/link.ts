import { concatenate } from '@upcall/foundation/bytes'
import { type Turn, transition } from '@upcall/foundation/machine'
import { Chain } from '../chain.js'
import { NEVER } from '../credit.js'
import { DeviceError } from '../errors.js'
import { Line } from '../line.js'
import { LARGEST_PACKET, Op, PACKET_HEADER_SIZE } from '../packet.js'
import { PacketIo } from '../packet-io.js'
import { packetCost } from '../switch/packet-queue.js'
import type { PortOptions, SwitchPort } from '../switch/port.js'
import type { VsockSwitch } from '../switch/switch.js'
import { Balance } from './balance.js'
import {
  encodeGone,
  encodeGuest,
  encodeHello,
  encodePacketFrame,
  encodeTaken,
  FRAME_HEADER_SIZE,
  type Frame,
  FrameError,
  FrameReader,
  type Guest,
  PACKET_FRAME_HEADER_SIZE,
} from './frame.js'
import { type LinkEffect, type LinkEnd, type LinkEvent, type LinkState, linkTable } from './link-life.js'

/** How many bytes of packets may be on their way to this side, or here and not yet handled. */
const WINDOW = 1 << 20
/** What is sent at once, at most. */
const BATCH = 1 << 18
/** Sums in one frame. */
const MOST_SUMS = 4096

/** What a link tells the networks' map of. */
export interface LinkOwner {
  /** The peer can be told of guests. */
  opened(link: TrunkLink): void
  guest(link: TrunkLink, guest: Guest): void
  gone(link: TrunkLink, cid: number): void
  /** The link is over. */
  parted(link: TrunkLink): void
}

export interface LinkOptions {
  readonly switch: VsockSwitch
  readonly owner: LinkOwner
  readonly ports: PortOptions
  /** There may be something to send. */
  readonly onTouch: () => void
  readonly window?: number | undefined
}

/**
 * One end of a link to another network: a pure machine. A guest that is reached over the link has a port of its own at the switch here, as if its
 * device were here: what the port has for the guest goes over the link, and what comes over the link from the guest goes into the port.
 *
 * Two things bound what is kept. Bytes on their way are bounded by a window, which the peer gives back as it handles them. And a packet counts
 * for its sender until its receiver has taken it, wherever it waits: the peer tells that too. So a slow guest holds up its senders,
 * wherever they are, and never the link.
 */
export class TrunkLink {
  readonly #options: LinkOptions
  readonly #ports = new Map<number, SwitchPort>()
  readonly #ready = new Line<SwitchPort>()
  readonly #reader = new FrameReader()
  readonly #io = new PacketIo()
  readonly #chain = new Chain()
  readonly #turn: Turn<LinkEffect> = { now: 0, effects: [] }
  #state: LinkState = { kind: 'greeting' }
  #batch = new Uint8Array(BATCH)
  /** Frames that go before all packets. */
  #control: Uint8Array[]
  /** How much may be on its way to this side, and to the peer. */
  readonly #window: number
  #peerWindow = 0
  #underWay = 0
  /** Bytes of packets that the peer has yet to hear of. */
  #handled = 0
  /** What our guests have taken of packets that came over the link, and the peer has yet to hear of. */
  readonly #taken = new Balance()
  #tellsTaken = false
  /** The packet that has just come waits at a port here. */
  #waits = false
  /** What went over the link, and its receivers have yet to take. */
  readonly #beyond = new Balance()

  constructor(options: LinkOptions) {
    this.#options = options
    this.#window = options.window ?? WINDOW
    this.#control = [encodeHello(this.#window)]
  }

  get isUp(): boolean {
    return this.#state.kind === 'up'
  }

  /** Why it is over. */
  get end(): LinkEnd | undefined {
    return this.#state.kind === 'over' ? this.#state.end : undefined
  }

  /** Bytes that are on their way to the peer. */
  get underWay(): number {
    return this.#underWay
  }

  // ── for the map ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Tells the peer of a guest that can be reached over here. A link that is not up says nothing. */
  announce(guest: Guest): void {
    this.#say(encodeGuest(guest))
  }

  withdraw(cid: number): void {
    this.#beyond.forget(cid)
    this.#say(encodeGone(cid))
  }

  /** That guest is reached over this link from now on. */
  adopt({ cid, groups }: Guest): void {
    const { switch: hub, ports, onTouch } = this.#options
    const port = hub.join({ ...ports, cid, groups })
    port.onTouch = () => {
      this.#ready.join(port)
      onTouch()
    }
    port.onHeld = (receiver, change) => {
      this.#taken.add(cid, receiver, -change)
      if (change > 0) {
        this.#waits = true
      } else {
        this.#tellsTaken = true
        onTouch()
      }
    }
    this.#ports.set(cid, port)
  }

  /** That guest is gone, or is reached another way. */
  abandon(cid: number, now: number): void {
    const port = this.#ports.get(cid)
    if (port === undefined) return
    this.#ports.delete(cid)
    this.#ready.leave(port)
    port.onTouch = () => {}
    port.onHeld = () => {}
    this.#taken.forget(cid)
    this.#options.switch.remove(cid)
    port.abandon(now)
  }

  // ── for the driver ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Bytes have come, in any pieces. */
  receive(bytes: Uint8Array, now: number): void {
    try {
      for (const frame of this.#reader.read(bytes)) {
        this.#step(frame.type === 'hello' ? frame : { type: 'frame', frame }, now)
      }
    } catch (error) {
      if (!(error instanceof FrameError || error instanceof DeviceError)) throw error
      this.close({ reason: 'protocol', what: error.what }, now)
    }
  }

  /** What is to be sent now; undefined if that is nothing. */
  next(now: number): Uint8Array | undefined {
    if (this.#state.kind === 'over') return undefined
    const control = this.#takeControl()
    if (control !== undefined) return control
    if (this.#state.kind !== 'up') return undefined
    const length = this.#fill(now)
    if (length === 0) return undefined
    if (2 * length < BATCH) return this.#batch.slice(0, length)
    const batch = this.#batch
    this.#batch = new Uint8Array(BATCH)
    return batch.subarray(0, length)
  }

  /** When `wake` wants to be called. */
  get wakeAt(): number {
    let at = NEVER
    for (const port of this.#ports.values()) at = Math.min(at, port.wakeAt)
    return at
  }

  wake(now: number): void {
    for (const port of this.#ports.values()) {
      port.wake(now)
      if (port.outgoing) this.#ready.join(port)
    }
  }

  /** It is over. Idempotent. */
  close(end: LinkEnd, now: number): void {
    this.#step({ type: 'end', end }, now)
  }

  // ── what comes of it ───────────────────────────────────────────────────────────────────────────────────────────────────

  #step(event: LinkEvent, now: number): void {
    const turn = this.#turn
    turn.now = now
    this.#state = transition(linkTable, turn, this.#state, event)
    for (const effect of turn.effects.splice(0)) {
      if (effect.type === 'open') {
        this.#peerWindow = effect.window
        this.#options.owner.opened(this)
      } else if (effect.type === 'take') this.#take(effect.frame, now)
      else this.#part()
    }
  }

  #take(frame: Exclude<Frame, { type: 'hello' }>, now: number): void {
    const { owner, onTouch } = this.#options
    switch (frame.type) {
      case 'guest':
        owner.guest(this, frame.guest)
        return
      case 'gone':
        owner.gone(this, frame.cid)
        return
      case 'packet':
        this.#takePacket(frame.bytes, now)
        if (this.#owesWord) onTouch()
        return
      case 'taken':
        this.#underWay = Math.max(0, this.#underWay - frame.bytes)
        for (const { sender, receiver, cost } of frame.taken) this.#release(sender, receiver, cost)
        onTouch()
    }
  }

  #takePacket(bytes: Uint8Array, now: number): void {
    const chain = this.#chain
    this.#handled += FRAME_HEADER_SIZE + bytes.length
    chain.begin(0)
    chain.append(bytes, 0, bytes.length, false)
    const header = this.#io.read(chain)
    const port = this.#ports.get(header.sourceCid)
    const cost = header.op === Op.RW && header.length > 0 ? packetCost(header.length) : 0
    // Taken, unless it waits here: then the port says so.
    this.#taken.add(header.sourceCid, header.destinationCid, cost)
    this.#waits = false
    port?.receive(header, chain, now)
    if (cost > 0 && !this.#waits) this.#tellsTaken = true
  }

  #release(sender: number, receiver: number, cost: number): void {
    const taken = this.#beyond.take(sender, receiver, cost)
    if (taken > 0) this.#options.switch.get(sender)?.port.release(receiver, taken)
  }

  #part(): void {
    this.#options.owner.parted(this)
    for (const { sender, receiver, cost } of this.#beyond.takeAll()) {
      this.#options.switch.get(sender)?.port.release(receiver, cost)
    }
    this.#control = []
  }

  #say(frame: Uint8Array): void {
    if (this.#state.kind !== 'up') return
    this.#control.push(frame)
    this.#options.onTouch()
  }

  /** The peer has to hear of what was handled and taken. */
  get #owesWord(): boolean {
    return this.#tellsTaken || 4 * this.#handled >= this.#window
  }

  /** All that goes before packets. */
  #takeControl(): Uint8Array | undefined {
    const frames = this.#control
    if (this.#owesWord) {
      const sums = this.#taken.takeAll(MOST_SUMS)
      this.#tellsTaken = sums.length === MOST_SUMS
      frames.push(encodeTaken(this.#handled, sums))
      this.#handled = 0
    }
    if (frames.length === 0) return undefined
    this.#control = []
    return frames.length === 1 ? frames[0] : concatenate(frames)
  }

  /** Puts packets into the batch, as many as there are and fit. */
  #fill(now: number): number {
    const batch = this.#batch
    const view = new DataView(batch.buffer)
    let at = 0
    for (let port = this.#ready.first; port !== undefined; port = this.#ready.first) {
      if (!port.outgoing) {
        this.#ready.leave(port)
        continue
      }
      if (this.#underWay >= this.#peerWindow || BATCH - at < PACKET_FRAME_HEADER_SIZE + LARGEST_PACKET) break
      const length = this.#fillPacket(port, at, now)
      encodePacketFrame(view, at, length)
      at += FRAME_HEADER_SIZE + length
      this.#underWay += FRAME_HEADER_SIZE + length
      this.#ready.turn()
    }
    return at
  }

  /** Returns the length of the packet, header included. */
  #fillPacket(port: SwitchPort, at: number, now: number): number {
    const chain = this.#chain
    const { header } = this.#io
    chain.begin(0)
    chain.append(this.#batch, at + FRAME_HEADER_SIZE, PACKET_HEADER_SIZE + LARGEST_PACKET, true)
    const length = port.fill(this.#io, chain, LARGEST_PACKET, now)
    const { sourceCid: sender, destinationCid: receiver } = header
    const source = length > 0 ? this.#options.switch.get(sender) : undefined
    if (source !== undefined) {
      const cost = packetCost(length)
      this.#beyond.add(sender, receiver, cost)
      source.port.hold(receiver, cost, now)
    }
    return PACKET_HEADER_SIZE + length
  }
}
