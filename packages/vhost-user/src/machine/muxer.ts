import type { Chain } from './chain.js'
import {
  type Connection,
  type ConnectionOptions,
  type ConnectionPorts,
  type ConnectionSnapshot,
  VsockConnection,
} from './connection.js'
import { ConnectionTable } from './connection-table.js'
import { guestError } from './errors.js'
import { Handle } from './handle.js'
import { Line } from './line.js'
import {
  decodePacketHeader,
  emptyHeader,
  encodePacketHeader,
  HOST_CID,
  Op,
  PACKET_HEADER_SIZE,
  type PacketHeader,
  TYPE_STREAM,
} from './packet.js'

export interface MuxerOptions extends ConnectionOptions {
  readonly guestCid: number
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
/** Resets owed to packets of no connection. While that many wait for a guest buffer, no packet is taken from the guest. */
const MAX_ORPHAN_RESETS = 64
/** The least a receive buffer must hold: a header and one byte. */
const MIN_RECEIVE_CHAIN = PACKET_HEADER_SIZE + 1

/** How many packets a connection may send in its turn, straight from its port, while others wait. */
const SHARED_BURST = 8

interface OrphanReset extends ConnectionPorts {
  readonly type: number
}

/**
 * All connections of one guest. Packets from the guest find their connection; connections with something to send take turns, one
 * packet each. Everything that the guest can make grow has a bound: the table, the buffers (by credit), the resets owed.
 */
export class VsockMuxer {
  readonly #options: MuxerOptions
  readonly #onTouch: () => void
  readonly #table = new ConnectionTable<Handle>()
  /** Those with a packet to send, and those with news for their owner. */
  readonly #ready = new Line<Handle>()
  readonly #news = new Line<Handle>()
  #orphans: OrphanReset[] = []
  #wakeAt = Number.POSITIVE_INFINITY
  #nextHostPort: number
  readonly #header = emptyHeader()
  readonly #bytes = new Uint8Array(PACKET_HEADER_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)

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
    return this.#ready.size + this.#orphans.length
  }

  /** Begins a connection to `guestPort`; undefined when the table is full. */
  connect(guestPort: number, now: number): Connection | undefined {
    if (this.#table.size >= this.#options.maxConnections) return undefined
    const connection = this.#add({ hostPort: this.#freeHostPort(), guestPort }, now)
    this.#onTouch()
    return connection
  }

  /** The connections with news since the last call. Those that a guest began are `accepting` and unknown to the caller. */
  takeNews(): readonly Connection[] {
    return this.#news.takeAll()
  }

  /** Whether another packet of the guest may be taken. */
  get accepting(): boolean {
    return this.#orphans.length < MAX_ORPHAN_RESETS
  }

  /** Takes one packet of the guest and returns its length. */
  receive(chain: Chain, now: number): number {
    if (chain.writable > 0) {
      throw guestError('DESCRIPTOR_ORDER', `transmit chain ${chain.head}`, `${chain.writable} of its bytes are writable`)
    }
    if (chain.readable < PACKET_HEADER_SIZE) {
      throw guestError('CHAIN_TOO_SHORT', `transmit chain ${chain.head}`, `its ${chain.readable} bytes hold no packet header`)
    }
    const header = this.#header
    chain.read(this.#bytes, 0, PACKET_HEADER_SIZE)
    decodePacketHeader(this.#view, header)
    if (header.length > chain.readable - PACKET_HEADER_SIZE) {
      const room = chain.readable - PACKET_HEADER_SIZE
      const what = `its packet claims ${header.length} bytes, and it holds ${room}`
      throw guestError('CHAIN_TOO_SHORT', `transmit chain ${chain.head}`, what)
    }
    // A guest sends as itself, and to the host alone.
    if (header.sourceCid === this.#options.guestCid && header.destinationCid === HOST_CID) this.#dispatch(header, chain, now)
    return PACKET_HEADER_SIZE + header.length
  }

  #dispatch(header: Readonly<PacketHeader>, chain: Chain, now: number): void {
    const { sourcePort: guestPort, destinationPort: hostPort, type } = header
    if (type !== TYPE_STREAM) {
      this.#owe(header.op, { hostPort, guestPort, type })
      return
    }
    const known = this.#table.get(hostPort, guestPort)
    if (header.op === Op.REQUEST && (known === undefined || known.state === 'closing' || known.state === 'closed')) {
      if (known?.machine.sendable) {
        // The guest would take the old connection's last packet for an answer to this REQUEST. So it gets an answer: a reset.
        known.machine.reset()
        this.#follow(known)
        return
      }
      // The guest is through with the old connection if it uses its port again.
      if (known !== undefined) this.#remove(known)
      if (this.#table.size >= this.#options.maxConnections) {
        this.#owe(header.op, { hostPort, guestPort, type })
        return
      }
      this.#add({ hostPort, guestPort }, now, header)
    } else if (known === undefined) {
      this.#owe(header.op, { hostPort, guestPort, type })
    } else {
      known.machine.receive(header, chain, now)
      this.#follow(known)
    }
  }

  /** Whether `fill` has a packet. */
  get outgoing(): boolean {
    return this.#ready.size > 0 || this.#orphans.length > 0
  }

  /** Puts the next packet into `chain` and returns its length. Only to be called while `outgoing`. */
  fill(chain: Chain, now: number): number {
    checkReceiveChain(chain)
    const orphan = this.#orphans.shift()
    if (orphan !== undefined) {
      this.#writeReset(orphan, chain)
      return PACKET_HEADER_SIZE
    }
    const handle = this.#ready.first!
    const header = this.#header
    header.type = TYPE_STREAM
    const length = handle.machine.next(header, chain.writable - PACKET_HEADER_SIZE, now)
    this.#writeHeader(chain)
    if (length > 0) handle.machine.copyOutput(chain, length)
    this.#follow(handle)
    if (this.#ready.first === handle) this.#ready.turn()
    return PACKET_HEADER_SIZE + length
  }

  /** How many chains `fillDirect` could fill now; 0: the next packet is one for `fill`. Only to be asked while `outgoing`. */
  get burst(): number {
    if (this.#orphans.length > 0) return 0
    const { burst } = this.#ready.first!.machine
    return this.#ready.size > 1 ? Math.min(burst, SHARED_BURST) : burst
  }

  /**
   * Fills chains with packets whose bytes come straight from a port. The result is how many chains have one; `filled` of each is its
   * length without the header. Only to be called while there is a `burst`.
   */
  fillDirect(chains: readonly Chain[], count: number): number {
    for (let i = 0; i < count; i++) checkReceiveChain(chains[i]!)
    const handle = this.#ready.first!
    const header = this.#header
    header.type = TYPE_STREAM
    const used = handle.machine.fillDirect(header, chains, count)
    for (let i = 0; i < used; i++) {
      header.length = chains[i]!.filled
      this.#writeHeader(chains[i]!)
    }
    this.#follow(handle)
    if (this.#ready.first === handle) this.#ready.turn()
    return used
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
    this.#orphans = []
    this.#wakeAt = Number.POSITIVE_INFINITY
  }

  #writeReset({ hostPort, guestPort, type }: OrphanReset, chain: Chain): void {
    Object.assign(this.#header, emptyHeader(), { sourcePort: hostPort, destinationPort: guestPort, type, op: Op.RST })
    this.#writeHeader(chain)
  }

  #writeHeader(chain: Chain): void {
    this.#header.sourceCid = HOST_CID
    this.#header.destinationCid = this.#options.guestCid
    encodePacketHeader(this.#header, this.#view)
    chain.write(this.#bytes, 0, PACKET_HEADER_SIZE)
  }

  /** A RST is never answered: two sides would answer each other for ever. */
  #owe(op: number, reset: OrphanReset): void {
    if (op !== Op.RST) this.#orphans.push(reset)
  }

  #add(ports: ConnectionPorts, now: number, request?: Readonly<PacketHeader>): Handle {
    const machine = new VsockConnection(ports, this.#options, now, request)
    const handle = new Handle(machine, () => {
      this.#follow(handle)
      this.#onTouch()
    })
    this.#table.add(handle)
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
    if (this.#table.delete(handle)) this.#ready.leave(handle)
  }

  #freeHostPort(): number {
    for (;;) {
      const port = this.#nextHostPort
      this.#nextHostPort = port === LAST_HOST_PORT ? FIRST_HOST_PORT : port + 1
      if (!this.#table.hasHostPort(port)) return port
    }
  }
}

function checkReceiveChain(chain: Chain): void {
  if (chain.readable > 0) {
    throw guestError('DESCRIPTOR_ORDER', `receive chain ${chain.head}`, `${chain.readable} of its bytes are readable`)
  }
  if (chain.writable < MIN_RECEIVE_CHAIN) {
    const what = `it has ${chain.writable} bytes, and a packet needs ${MIN_RECEIVE_CHAIN}`
    throw guestError('CHAIN_TOO_SHORT', `receive chain ${chain.head}`, what)
  }
}
