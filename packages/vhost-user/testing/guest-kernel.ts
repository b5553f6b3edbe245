import { emptyHeader, Op, type PacketHeader, TYPE_SEQPACKET, TYPE_STREAM } from '../src/machine/packet.js'
import type { GuestPacket } from './fake-guest.js'
import type { GuestDriver } from './guest-driver.js'
import { type Address, KernelSocket, type SocketKind, type SocketOptions } from './kernel-socket.js'

interface Listener {
  readonly kind: SocketKind
  readonly options: SocketOptions
  readonly onConnection: (socket: KernelSocket) => void
}

const FIRST_PORT = 0x1000_0000
/** Answers that wait for room in the transmit ring. From there on Linux takes no packet before some have left (virtio_vsock_more_replies). */
const MAX_REPLIES = 128

/**
 * AF_VSOCK of a guest, with as many sockets as it likes, as Linux 6.12 has it (net/vmw_vsock/virtio_transport_common.c): packets leave in
 * one order for all sockets, and answers that cannot leave keep the guest from taking further packets.
 */
export class GuestKernel {
  readonly cid: number
  readonly driver: GuestDriver
  /** Packets that came for no socket of this guest, by operation: `RST`s, mostly. */
  readonly strays: GuestPacket[] = []
  readonly sockets = new Set<KernelSocket>()
  readonly #bySockets = new Map<string, KernelSocket>()
  readonly #listeners = new Map<number, Listener>()
  #queue: { header: PacketHeader; payload: Uint8Array; reply: boolean }[] = []
  #replies = 0
  #received: GuestPacket[] = []
  #nextPort = FIRST_PORT

  constructor(cid: number, driver: GuestDriver) {
    this.cid = cid
    this.driver = driver
  }

  listen(port: number, kind: SocketKind, onConnection: (socket: KernelSocket) => void, options: SocketOptions = {}): void {
    this.#listeners.set(port, { kind, options, onConnection })
  }

  connect(to: Address, kind: SocketKind = 'stream', options: SocketOptions & { port?: number } = {}): KernelSocket {
    const socket = this.#add(options.port ?? this.#nextPort++, to, kind, options)
    socket.request()
    return socket
  }

  /** Takes packets, at most so many, and lets every socket do what it can; true if anything moved. */
  step(now: number, most = Number.POSITIVE_INFINITY): boolean {
    let moved = this.#flush()
    this.#received.push(...this.driver.receive())
    for (let taken = 0; taken < most && this.#replies < MAX_REPLIES && this.#received.length > 0; taken++) {
      this.#hear(this.#received.shift()!, now)
      moved = true
    }
    for (const socket of this.sockets) moved = socket.step(now) || moved
    moved = this.#flush() || moved
    if (this.#received.length === 0) this.driver.supply()
    return moved
  }

  /** Packets that wait for room in the transmit ring. */
  get waiting(): number {
    return this.#queue.length
  }

  /** When a socket wants to see the time. */
  get wakeAt(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...[...this.sockets].map((socket) => socket.wakeAt))
  }

  /** @internal */
  send(header: Partial<PacketHeader>, payload: Uint8Array = new Uint8Array(0), reply = false): void {
    const full = { ...emptyHeader(), sourceCid: this.cid, length: payload.length, ...header }
    this.#queue.push({ header: full, payload, reply })
    if (reply) this.#replies++
  }

  /** @internal */
  remove(socket: KernelSocket): void {
    this.sockets.delete(socket)
    if (this.#bySockets.get(keyOf(socket.port, socket.peer)) === socket) this.#bySockets.delete(keyOf(socket.port, socket.peer))
  }

  #flush(): boolean {
    let sent = 0
    for (const { header, payload, reply } of this.#queue) {
      if (!this.driver.send(header, payload)) break
      sent++
      if (reply) this.#replies--
    }
    this.#queue.splice(0, sent)
    return sent > 0
  }

  #hear(packet: GuestPacket, now: number): void {
    const { header } = packet
    if (header.destinationCid !== this.cid) throw new Error(`guest ${this.cid} got a packet for ${header.destinationCid}`)
    const kind = kindOf(header.type)
    const peer = { cid: header.sourceCid, port: header.sourcePort }
    const known = this.#bySockets.get(keyOf(header.destinationPort, peer))
    if (known !== undefined && known.kind === kind) {
      known.hear(packet, now)
      return
    }
    const listener = known === undefined ? this.#listeners.get(header.destinationPort) : undefined
    if (listener === undefined || listener.kind !== kind || header.op !== Op.REQUEST) {
      this.strays.push(packet)
      if (this.strays.length > 1000) this.strays.shift()
      if (header.op !== Op.RST) this.#resetNoSocket(header)
      return
    }
    const socket = this.#add(header.destinationPort, peer, kind, listener.options)
    socket.accept(packet, now)
    listener.onConnection(socket)
  }

  /** virtio_transport_reset_no_sock. */
  #resetNoSocket(header: Readonly<PacketHeader>): void {
    const { sourceCid, sourcePort, destinationPort, type } = header
    const to = { destinationCid: sourceCid, destinationPort: sourcePort, sourcePort: destinationPort }
    this.send({ ...to, op: Op.RST, type }, undefined, true)
  }

  #add(port: number, peer: Address, kind: SocketKind, options: SocketOptions): KernelSocket {
    const key = keyOf(port, peer)
    if (this.#bySockets.has(key)) throw new Error(`guest ${this.cid}: the address ${key} is in use`)
    const socket = new KernelSocket(this, port, peer, kind, options)
    this.sockets.add(socket)
    this.#bySockets.set(key, socket)
    return socket
  }
}

const keyOf = (port: number, peer: Address): string => `${port}-${peer.cid}:${peer.port}`
const kindOf = (type: number): SocketKind | undefined =>
  type === TYPE_STREAM ? 'stream' : type === TYPE_SEQPACKET ? 'seqpacket' : undefined
