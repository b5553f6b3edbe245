import type { Chain } from './chain.js'
import { type ConnectionOptions, type ConnectionSnapshot, VsockConnection } from './connection.js'
import { DeviceError } from './errors.js'
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
  /** Entries of the connection table, those still saying goodbye included. */
  readonly maxConnections: number
  /**
   * The host's port of the first connection that it begins; the next ones count up. Default 2^30. A guest may remember connections that
   * this side has forgotten: begin where they ended, or anywhere.
   */
  readonly firstHostPort?: number | undefined
}

/** Host ports count from here: below are the ports that people choose. */
export const FIRST_HOST_PORT = 2 ** 30
export const LAST_HOST_PORT = 2 ** 32 - 2
/** Resets owed to packets of no connection. While that many wait for a guest buffer, no packet is taken from the guest. */
const MAX_ORPHAN_RESETS = 64
/** The least a receive buffer must hold: a header and one byte. */
const MIN_RECEIVE_CHAIN = PACKET_HEADER_SIZE + 1

interface OrphanReset {
  readonly hostPort: number
  readonly guestPort: number
  readonly type: number
}

/**
 * All connections of one guest. Packets from the guest find their connection; connections with something to say take turns, one
 * packet each. Everything that the guest can make grow has a bound: the table, the buffers (by credit), the resets owed.
 */
export class VsockMuxer {
  readonly #options: MuxerOptions
  /** By host port, then by guest port. */
  readonly #table = new Map<number, Map<number, VsockConnection>>()
  #size = 0
  #ready: VsockConnection[] = []
  #news: VsockConnection[] = []
  #orphans: OrphanReset[] = []
  #wake = Number.POSITIVE_INFINITY
  #nextHostPort: number
  readonly #header = emptyHeader()
  readonly #bytes = new Uint8Array(PACKET_HEADER_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)

  constructor(options: MuxerOptions) {
    this.#options = options
    this.#nextHostPort = options.firstHostPort ?? FIRST_HOST_PORT
  }

  /** Where the host's ports go on. */
  get nextHostPort(): number {
    return this.#nextHostPort
  }

  get size(): number {
    return this.#size
  }

  /** Connections and resets that wait for a guest buffer. */
  get waiting(): number {
    return this.#ready.length + this.#orphans.length
  }

  /** Begins a connection to `guestPort`; undefined when the table is full. */
  connect(guestPort: number, now: number): VsockConnection | undefined {
    if (this.#size >= this.#options.maxConnections) return undefined
    const connection = new VsockConnection({ hostPort: this.#freeHostPort(), guestPort }, this.#options, now)
    this.#add(connection)
    return connection
  }

  /** To be called after every call of a connection's methods: looks what came of it. */
  touch(connection: VsockConnection): void {
    if (connection.changed && !connection.listed) {
      connection.listed = true
      this.#news.push(connection)
    }
    if (!connection.queued && connection.sendable) {
      connection.queued = true
      this.#ready.push(connection)
    }
    if (connection.deadline < this.#wake) this.#wake = connection.deadline
    if (connection.state === 'closed' && !connection.sendable) this.#remove(connection)
  }

  /** The connections with news since the last call; those that a guest began are `accepting` and unknown to the caller. */
  takeNews(): readonly VsockConnection[] {
    const news = this.#news
    if (news.length === 0) return news
    this.#news = []
    for (const connection of news) connection.changed = connection.listed = false
    return news
  }

  /** Whether another packet of the guest may be taken. */
  get accepting(): boolean {
    return this.#orphans.length < MAX_ORPHAN_RESETS
  }

  /** Takes one packet of the guest and returns its length. */
  receive(chain: Chain, now: number): number {
    if (chain.writable > 0) {
      throw new DeviceError(
        'DESCRIPTOR_ORDER',
        `transmit chain ${chain.head} holds ${chain.writable} writable bytes, none are allowed`,
      )
    }
    if (chain.readable < PACKET_HEADER_SIZE) {
      throw new DeviceError('CHAIN_TOO_SHORT', `transmit chain ${chain.head} of ${chain.readable} bytes holds no packet header`)
    }
    const header = this.#header
    chain.read(this.#bytes, 0, PACKET_HEADER_SIZE)
    decodePacketHeader(this.#view, header)
    if (header.length > chain.readable - PACKET_HEADER_SIZE) {
      const room = chain.readable - PACKET_HEADER_SIZE
      throw new DeviceError(
        'CHAIN_TOO_SHORT',
        `packet of ${header.length} bytes in transmit chain ${chain.head}, which holds ${room}`,
      )
    }
    // A guest speaks for itself and to the host alone.
    if (header.sourceCid === this.#options.guestCid && header.destinationCid === HOST_CID) this.#dispatch(header, chain, now)
    return PACKET_HEADER_SIZE + header.length
  }

  #dispatch(header: Readonly<PacketHeader>, chain: Chain, now: number): void {
    const { sourcePort: guestPort, destinationPort: hostPort, type } = header
    if (type !== TYPE_STREAM) {
      this.#owe(header.op, { hostPort, guestPort, type })
      return
    }
    const known = this.#find(hostPort, guestPort)
    if (header.op === Op.REQUEST && (known === undefined || known.state === 'closing' || known.state === 'closed')) {
      if (known?.sendable) {
        // What is still to be said of the old connection would be taken for an answer to this: let it be one.
        known.reset()
        this.touch(known)
        return
      }
      // The guest has done with the old connection if it uses its port anew.
      if (known !== undefined) this.#remove(known)
      if (this.#size >= this.#options.maxConnections) {
        this.#owe(header.op, { hostPort, guestPort, type })
        return
      }
      const connection = new VsockConnection({ hostPort, guestPort }, this.#options, now, header)
      connection.changed = true
      this.#add(connection)
    } else if (known === undefined) {
      this.#owe(header.op, { hostPort, guestPort, type })
    } else {
      known.receive(header, chain, now)
      this.touch(known)
    }
  }

  /** Whether `fill` has a packet. */
  get outgoing(): boolean {
    if (this.#orphans.length > 0) return true
    for (;;) {
      const first = this.#ready[0]
      if (first === undefined) return false
      if (first.sendable) return true
      first.queued = false
      this.#ready.shift()
    }
  }

  /** Puts the next packet into `chain` and returns its length. Only to be called while `outgoing`. */
  fill(chain: Chain, now: number): number {
    if (chain.readable > 0) {
      throw new DeviceError(
        'DESCRIPTOR_ORDER',
        `receive chain ${chain.head} holds ${chain.readable} readable bytes, none are allowed`,
      )
    }
    if (chain.writable < MIN_RECEIVE_CHAIN) {
      throw new DeviceError(
        'CHAIN_TOO_SHORT',
        `receive chain ${chain.head} of ${chain.writable} bytes, a packet needs ${MIN_RECEIVE_CHAIN}`,
      )
    }
    const orphan = this.#orphans.shift()
    if (orphan !== undefined) {
      this.#writeReset(orphan, chain)
      return PACKET_HEADER_SIZE
    }
    const connection = this.#ready.shift()!
    connection.queued = false
    const header = this.#header
    header.type = TYPE_STREAM
    const length = connection.next(header, chain.writable - PACKET_HEADER_SIZE, now)
    this.#writeHeader(chain)
    if (length > 0) connection.copyOutput(chain, length)
    this.touch(connection)
    return PACKET_HEADER_SIZE + length
  }

  /** When `handleTimeout` wants to be called; `Infinity` for never. May be early. */
  nextTimeout(): number {
    return this.#wake
  }

  /** Lets every connection see the time. Being called early does nothing. */
  handleTimeout(now: number): void {
    if (now < this.#wake) return
    this.#wake = Number.POSITIVE_INFINITY
    for (const peers of [...this.#table.values()]) {
      for (const connection of [...peers.values()]) {
        connection.handleTimeout(now)
        this.touch(connection)
      }
    }
  }

  /** How things stand with every connection, as plain data. */
  snapshot(): ConnectionSnapshot[] {
    return [...this.#table.values()].flatMap((peers) => [...peers.values()].map((connection) => connection.snapshot()))
  }

  /** The guest's driver has gone: every connection ends without a packet, and nothing of the old guest is kept. */
  abandon(): void {
    for (const peers of [...this.#table.values()]) {
      for (const connection of [...peers.values()]) {
        connection.abandon()
        connection.queued = false
        this.touch(connection)
        this.#remove(connection)
      }
    }
    this.#ready = []
    this.#orphans = []
    this.#wake = Number.POSITIVE_INFINITY
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

  #find(hostPort: number, guestPort: number): VsockConnection | undefined {
    return this.#table.get(hostPort)?.get(guestPort)
  }

  #add(connection: VsockConnection): void {
    const peers = this.#table.get(connection.hostPort)
    if (peers === undefined) this.#table.set(connection.hostPort, new Map([[connection.guestPort, connection]]))
    else peers.set(connection.guestPort, connection)
    this.#size++
    this.touch(connection)
  }

  #remove(connection: VsockConnection): void {
    const peers = this.#table.get(connection.hostPort)
    if (peers?.get(connection.guestPort) !== connection) return
    peers.delete(connection.guestPort)
    if (peers.size === 0) this.#table.delete(connection.hostPort)
    this.#size--
    // What is in line is in the table, and so has its bound.
    if (connection.queued) this.#ready.splice(this.#ready.indexOf(connection), 1)
    connection.queued = false
  }

  #freeHostPort(): number {
    for (;;) {
      const port = this.#nextHostPort
      this.#nextHostPort = port === LAST_HOST_PORT ? FIRST_HOST_PORT : port + 1
      if (!this.#table.has(port)) return port
    }
  }
}
