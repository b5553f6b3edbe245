import type { Chain } from './chain.js'
import {
  type Connection,
  type ConnectionEnds,
  type ConnectionOptions,
  type ConnectionSnapshot,
  VsockConnection,
} from './connection.js'
import { ConnectionTable } from './connection-table.js'
import { Handle } from './handle.js'
import { Line } from './line.js'
import { OrphanResets } from './orphan-resets.js'
import { HOST_CID, Op, type PacketHeader, type SocketType, socketType, TYPE_SEQPACKET, TYPE_STREAM, typeCode } from './packet.js'
import type { PacketIo } from './packet-io.js'
import type { PolicyGate } from './policy.js'

export interface MuxerOptions extends ConnectionOptions {
  readonly guestCid: number
  /** The CID of connections that the host begins. Default 2. */
  readonly hostCid?: number | undefined
  /** Asked for each connection that the guest begins: an answer is the reason why it is refused. */
  readonly admit?: ((request: Readonly<PacketHeader>, now: number) => string | undefined) | undefined
  /** Told of each connection that begins and of each that is gone. Whether it may begin is for `admit`, and for the owner of the muxer. */
  readonly policy?: PolicyGate | undefined
  /** Entries of the connection table, connections that are closing included. */
  readonly maxConnections: number
  /**
   * The host's port of the first connection that it begins; the next ones count up. Default 2^30. A guest may remember connections that
   * this side has forgotten: begin where they ended, or anywhere.
   */
  readonly firstHostPort?: number | undefined
}

/** Host ports count from here: the ports below are chosen by people. */
export const FIRST_HOST_PORT = 2 ** 30
export const LAST_HOST_PORT = 2 ** 32 - 2

/** How many packets a connection may send in its turn, straight from its port, while others wait. */
export const SHARED_BURST = 8

/**
 * All connections of one guest. Packets from the guest find their connection; connections with something to send take turns, one
 * packet each. Everything that the guest can make grow has a bound: the table, the buffers (by credit), the resets owed.
 */
export class VsockMuxer {
  readonly #options: MuxerOptions
  /** The guest's driver has taken VIRTIO_VSOCK_F_SEQPACKET. Without it, SEQPACKET is a type that is not known here. */
  seqpacket = false
  readonly #onTouch: () => void
  readonly #table = new ConnectionTable<Handle>()
  /** Those with a packet to send, and those with news for their owner. */
  readonly #ready = new Line<Handle>()
  readonly #news = new Line<Handle>()
  readonly #orphans = new OrphanResets()
  #wakeAt = Number.POSITIVE_INFINITY
  #nextHostPort: number

  /** @param onTouch called when the owner of a connection did something to it: `outgoing`, `wakeAt` and `takeNews` may have more to tell. */
  constructor(options: MuxerOptions, onTouch: () => void = () => {}) {
    this.#options = options
    this.#onTouch = onTouch
    this.#nextHostPort = options.firstHostPort ?? FIRST_HOST_PORT
  }

  /** Where the host's ports go on. */
  get nextHostPort(): number {
    return this.#nextHostPort
  }

  get size(): number {
    return this.#table.size
  }

  /** Connections and resets that wait for a guest buffer. */
  get waiting(): number {
    return this.#ready.size + this.#orphans.size
  }

  /** Begins a connection to `guestPort`; undefined when the table is full. `seqpacket` is only for a guest that has taken the feature. */
  connect(guestPort: number, now: number, type: SocketType = 'stream'): Connection | undefined {
    if (this.#table.size >= this.#options.maxConnections) return undefined
    const { hostCid = HOST_CID } = this.#options
    const connection = this.#add({ hostPort: this.#freeHostPort(), guestPort, hostCid, type }, now)
    this.#onTouch()
    return connection
  }

  /** The connections with news since the last call. Those that a guest began are `accepting` and unknown to the caller. */
  takeNews(): readonly Connection[] {
    return this.#news.takeAll()
  }

  /** Whether another packet of the guest may be taken. */
  get accepting(): boolean {
    return !this.#orphans.full
  }

  /** Whether the packet's ports and the CID that it goes to are those of a connection. */
  has({ sourcePort, destinationCid, destinationPort }: Readonly<PacketHeader>): boolean {
    return this.#table.get(destinationPort, sourcePort)?.machine.hostCid === destinationCid
  }

  /** Takes one packet of the guest to the host. `chain` stands at its payload. */
  receive(header: Readonly<PacketHeader>, chain: Chain, now: number): void {
    const { sourcePort: guestPort, destinationPort: hostPort, destinationCid: hostCid } = header
    if (header.type !== TYPE_STREAM && !(header.type === TYPE_SEQPACKET && this.seqpacket)) {
      this.#orphans.owe(header)
      return
    }
    const known = this.#table.get(hostPort, guestPort)
    // One pair of ports is one connection, whichever of the host's CIDs it was begun with.
    if (known !== undefined && known.machine.hostCid !== hostCid) this.#orphans.owe(header)
    else if (header.op === Op.REQUEST && (known === undefined || known.state === 'closing' || known.state === 'closed')) {
      this.#request(header, known, now)
    } else if (known === undefined || header.type !== typeCode(known.type)) {
      // A packet of the other type does not belong to the connection that has the ports. Linux answers alike.
      this.#orphans.owe(header)
    } else {
      known.machine.receive(header, chain, now)
      this.#follow(known)
    }
  }

  #request(header: Readonly<PacketHeader>, known: Handle | undefined, now: number): void {
    if (known?.machine.sendable) {
      // The guest would take the old connection's last packet for an answer to this REQUEST. So it gets an answer: a reset.
      known.machine.reset()
      this.#follow(known)
      return
    }
    // The guest is through with the old connection if it uses its port again.
    if (known !== undefined) this.#remove(known)
    if (this.#table.size >= this.#options.maxConnections || this.#options.admit?.(header, now) !== undefined) {
      this.#orphans.owe(header)
      return
    }
    const { sourcePort: guestPort, destinationPort: hostPort, destinationCid: hostCid } = header
    this.#add({ hostPort, guestPort, hostCid, type: socketType(header.type) }, now, header)
  }

  /** Whether `fill` has a packet. */
  get outgoing(): boolean {
    return this.#ready.size > 0 || this.#orphans.size > 0
  }

  /** Puts the next packet into `chain`, which has `room` for payload, and returns the payload's length. Only to be called while `outgoing`. */
  fill(io: PacketIo, chain: Chain, room: number, now: number): number {
    if (this.#orphans.take(io.header)) {
      io.write(chain)
      return 0
    }
    const handle = this.#ready.first!
    const length = this.#write(handle, io, chain, room, now)
    if (length > 0) handle.machine.copyOutput(chain, length)
    this.#sent(handle)
    return length
  }

  /** How many chains `fillAhead` could fill now; 0: the next packet is one for `fill`. Only to be asked while `outgoing`. */
  get burst(): number {
    if (this.#orphans.size > 0) return 0
    const { burst } = this.#ready.first!.machine
    return this.#ready.size > 1 ? Math.min(burst, SHARED_BURST) : burst
  }

  /**
   * Fills chains with packets whose bytes come straight from a port. The result is how many chains have one; `filled` of each is its
   * payload's length. Only to be called while there is a `burst`.
   */
  fillAhead(io: PacketIo, chains: readonly Chain[], count: number, now: number): number {
    for (let i = 0; i < count; i++) io.room(chains[i]!)
    const handle = this.#ready.first!
    const used = handle.machine.readAhead(chains, count)
    for (let i = 0; i < used; i++) this.#write(handle, io, chains[i]!, chains[i]!.filled, now)
    this.#sent(handle)
    return used
  }

  /** Writes the header of the connection's next packet and returns its payload's length. */
  #write({ machine }: Handle, io: PacketIo, chain: Chain, room: number, now: number): number {
    const { header } = io
    header.type = typeCode(machine.type)
    header.sourceCid = machine.hostCid
    header.destinationCid = this.#options.guestCid
    const length = machine.next(header, room, now)
    io.write(chain)
    return length
  }

  #sent(handle: Handle): void {
    this.#follow(handle)
    if (this.#ready.first === handle) this.#ready.turn()
  }

  /** When `wake` wants to be called; `Infinity` for never. May be early. */
  get wakeAt(): number {
    return this.#wakeAt
  }

  /** Lets every connection see the time. Being called early does nothing. */
  wake(now: number): void {
    if (now < this.#wakeAt) return
    this.#wakeAt = Number.POSITIVE_INFINITY
    for (const handle of this.#table.all()) {
      handle.machine.wake(now)
      this.#follow(handle)
    }
  }

  /** How things stand with every connection, as plain data. */
  snapshot(): ConnectionSnapshot[] {
    return this.#table.all().map(({ machine }) => machine.snapshot())
  }

  /** The guest's driver has gone: every connection ends without a packet, and nothing of the old guest is kept. */
  abandon(): void {
    for (const handle of this.#table.all()) {
      handle.machine.abandon()
      this.#follow(handle)
      this.#remove(handle)
    }
    this.#orphans.clear()
    this.#wakeAt = Number.POSITIVE_INFINITY
  }

  #add(ports: ConnectionEnds, now: number, request?: Readonly<PacketHeader>): Handle {
    const machine = new VsockConnection(ports, this.#options, now, request)
    const handle = new Handle(machine, request === undefined ? 'toGuest' : 'fromGuest', () => {
      this.#follow(handle)
      this.#onTouch()
    })
    this.#table.add(handle)
    this.#options.policy?.begin(handle.direction, now)
    this.#options.tally?.begun(handle.direction)
    this.#follow(handle)
    return handle
  }

  /** After everything that happens to a connection: sees what came of it. */
  #follow(handle: Handle): void {
    const { machine } = handle
    if (machine.changed) {
      machine.changed = false
      this.#news.join(handle)
    }
    if (machine.sendable) this.#ready.join(handle)
    else this.#unready(handle)
    if (machine.wakeAt < this.#wakeAt) this.#wakeAt = machine.wakeAt
  }

  #unready(handle: Handle): void {
    this.#ready.leave(handle)
    if (handle.state === 'closed') this.#remove(handle)
  }

  /** What is in line is in the table, and so has its bound. */
  #remove(handle: Handle): void {
    if (!this.#table.delete(handle)) return
    this.#ready.leave(handle)
    this.#options.policy?.end(handle.direction)
  }

  #freeHostPort(): number {
    for (;;) {
      const port = this.#nextHostPort
      this.#nextHostPort = port === LAST_HOST_PORT ? FIRST_HOST_PORT : port + 1
      if (!this.#table.hasHostPort(port)) return port
    }
  }
}
