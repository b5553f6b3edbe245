import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { callBack } from '@upcall/foundation/callback'
import { checkClock, checkFunction, checkObject, checkSwitch, duration, integer, wrongType } from '@upcall/foundation/check'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import { type Address, Cid, formatAddress, type SeqpacketAddress } from '../address.js'
import { iterateBy } from '../iterate.js'
import { trace } from '../trace.js'
import type { GuestBoot } from './boot.js'
import { Boots, checkReadyOptions, type ReadyOptions } from './boots.js'
import { type NotifyMessage, type NotifySender, parseNotify } from './message.js'
import {
  type NotifyRefusalReason,
  type ReadHandlers,
  type Reading,
  type ReadLimits,
  readNotify,
  readNotifyPackets,
} from './read.js'

export interface NotifyReceiverOptions {
  /** The guest whose messages count; default any. Where the transport tells no CID, this is taken for the sender's. */
  cid?: number | undefined
  /**
   * Takes messages only from ports below 1024, which in the guest need CAP_NET_BIND_SERVICE: so no other process of the guest can say that
   * it is ready. systemd sends from such a port. Default false. Hybrid vsock and Unix sockets tell no port.
   */
  privileged?: boolean | undefined
  /** Longer messages are refused. Default 4096 bytes, as systemd has it. */
  maxMessageBytes?: number | undefined
  /** Connections at once; any more are refused. Default 64. */
  maxConnections?: number | undefined
  /** Guests that are kept apart; messages of any more are refused. Default 1024. */
  maxGuests?: number | undefined
  /** Messages that wait for an iterator; beyond that the oldest is dropped. Default 256. */
  maxPending?: number | undefined
  /** How long one connection may last. Default 5000 ms. */
  connectionTimeoutMs?: number | undefined
  /**
   * A message is complete, too, when no more of it came for so long. Some VMMs do not pass on that the guest has ended its side, and
   * a guest's PID 1 does nothing else until it has an answer. Default: 200 ms on hybrid vsock and Unix sockets, else Infinity.
   */
  quietMs?: number | undefined
  clock?: Clock | undefined
}

/** What the receiver needs of a connection that a guest asks for: `IncomingConnection` of `@upcall/vhost-user` has it. */
export interface NotifyingConnection {
  readonly guestCid: number
  readonly guestPort: number
  readonly type: 'stream' | 'seqpacket'
  accept(): Duplex
  acceptSeqpacket(): MessageSocket
}

export interface NotifyRefusal {
  readonly from: NotifySender
  readonly reason: NotifyRefusalReason
}

export interface NotifyReceiverEvents {
  message: [message: NotifyMessage]
  /** A connection was closed without a message. */
  refused: [refusal: NotifyRefusal]
  close: []
}

const MAX_MESSAGE_BYTES = 4096
const MAX_CONNECTIONS = 64
const MAX_GUESTS = 1024
const MAX_PENDING = 256
const CONNECTION_TIMEOUT_MS = 5_000
const PRIVILEGED_PORTS = 1024

/**
 * Receives what guests send with sd_notify(3): one message on each connection. `listenNotify` feeds it from an address, `accept` from
 * a vhost-user device, `receive` from anything else. Whatever a guest sends, memory stays bounded.
 */
export class NotifyReceiver extends EventEmitter<NotifyReceiverEvents> implements AsyncIterable<NotifyMessage>, AsyncDisposable {
  readonly #options: NotifyReceiverOptions
  readonly #limits: ReadLimits
  readonly #maxConnections: number
  readonly #maxPending: number
  readonly #boots: Boots
  readonly #readings = new Set<Reading>()
  readonly #queue: NotifyMessage[] = []
  readonly #takers: ((result: IteratorResult<NotifyMessage, undefined>) => void)[] = []
  #address: Address | SeqpacketAddress | undefined
  #stop: () => Promise<void> = async () => {}
  #closed: Promise<void> | undefined

  /** @throws {TypeError} or {RangeError} for an option that is wrong. */
  constructor(options: NotifyReceiverOptions = {}) {
    super()
    checkNotifyOptions(options)
    this.#options = options
    this.#limits = {
      maxMessageBytes: options.maxMessageBytes ?? MAX_MESSAGE_BYTES,
      connectionTimeoutMs: options.connectionTimeoutMs ?? CONNECTION_TIMEOUT_MS,
      quietMs: options.quietMs ?? Number.POSITIVE_INFINITY,
      clock: options.clock ?? systemClock,
    }
    this.#maxConnections = options.maxConnections ?? MAX_CONNECTIONS
    this.#boots = new Boots(options.maxGuests ?? MAX_GUESTS, this.#limits.clock)
    this.#maxPending = options.maxPending ?? MAX_PENDING
  }

  /**
   * Says where the connections come from.
   *
   * @internal
   */
  fedBy(address: Address, stop: () => Promise<void>): void {
    this.#address = address
    this.#stop = stop
  }

  /** Where it listens; undefined for a receiver without an address. */
  get address(): Address | SeqpacketAddress | undefined {
    return this.#address
  }

  /** What each guest has told, by its CID; undefined stands for a transport that tells none. */
  get guests(): ReadonlyMap<number | undefined, GuestBoot> {
    return this.#boots.guests
  }

  /**
   * Takes a connection of the guest of a vhost-user device, or refuses it. For `onConnection`, which may return the result:
   * `onConnection: (port, incoming) => (port === 9999 ? receiver.accept(incoming) : undefined)`.
   */
  accept(incoming: NotifyingConnection): undefined {
    checkObject('incoming', incoming)
    checkFunction('incoming.accept', incoming.accept)
    const from: NotifySender = { cid: incoming.guestCid, port: incoming.guestPort }
    const refusal = this.#refusalOf(from)
    if (refusal !== undefined) this.#refuse(from, refusal)
    else this.receive(incoming.type === 'stream' ? incoming.accept() : incoming.acceptSeqpacket(), from)
  }

  /**
   * Reads a connection to its end and closes it: one message from a stream, each packet from a socket for messages.
   *
   * @throws {TypeError} if it is neither.
   */
  receive(connection: Duplex | MessageSocket, from: NotifySender = {}): void {
    checkObject('connection', connection, 'a stream, or a socket for messages')
    const packets = 'receive' in connection ? connection : undefined
    const stream = 'pipe' in connection ? connection : undefined
    if (stream === undefined && packets === undefined) wrongType('connection', 'a stream, or a socket for messages', connection)
    const sender: NotifySender = { cid: from.cid ?? this.#options.cid, port: from.port }
    const refusal = this.#refusalOf(sender)
    if (refusal !== undefined) {
      stream?.on('error', () => {}).destroy()
      packets?.destroy()
      this.#refuse(sender, refusal)
      return
    }
    const handlers: ReadHandlers = {
      onMessage: (bytes) => this.#take(bytes, sender),
      onClosed: (reason) => {
        this.#readings.delete(reading)
        if (reason !== undefined) this.#refuse(sender, reason)
      },
    }
    const reading =
      stream === undefined ? readNotifyPackets(packets!, this.#limits, handlers) : readNotify(stream, this.#limits, handlers)
    this.#readings.add(reading)
  }

  /**
   * Resolves when a guest has said READY=1, with all that it told; at once if it has said so already. A guest that has not reached
   * basic.target by then has one second to tell of another target: systemd says READY=1 in emergency mode, too, a moment too early.
   *
   * @throws {VsockError} op `ready`, with what was `heard`: `GUEST_FAILED` if the guest reports a failure or its boot ended in emergency
   *   mode, `GUEST_STOPPED` if it goes down, `ETIMEDOUT`, `ABORTED`, and `ECANCELED` if the receiver is closed.
   */
  async ready(options: ReadyOptions = {}): Promise<GuestBoot> {
    const { timeoutMs } = checkReadyOptions(options)
    const { cid = this.#options.cid, unit, signal } = options
    return this.#boots.ready({ cid, unit, timeoutMs, signal }, this.#address ? formatAddress(this.#address) : '')
  }

  /** Forgets what a guest has told, so that `ready()` waits for its next boot. */
  forget(cid?: number): void {
    this.#boots.forget(cid ?? this.#options.cid)
  }

  /** Stops listening and closes the connections. Iterators finish, `ready()` rejects. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#shut()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Yields messages as they are taken, those that came before included, and ends with `close()`. Leaving the loop does not close. */
  [Symbol.asyncIterator](): AsyncIterableIterator<NotifyMessage> {
    return iterateBy(() => this.#next())
  }

  #refusalOf({ cid, port }: NotifySender): NotifyRefusalReason | undefined {
    if (this.#closed !== undefined || this.#readings.size >= this.#maxConnections) return 'full'
    if (this.#options.cid !== undefined && cid !== this.#options.cid) return 'cid'
    if (this.#options.privileged && (port === undefined || port >= PRIVILEGED_PORTS)) return 'port'
    return this.#boots.hasRoomFor(cid) ? undefined : 'full'
  }

  #refuse(from: NotifySender, reason: NotifyRefusalReason): void {
    trace({ type: 'notify-refused', from, reason }, 'notify: refused CID %s, port %s: %s', from.cid, from.port, reason)
    callBack(() => void this.emit('refused', { from, reason }))
  }

  #take(bytes: Uint8Array, from: NotifySender): void {
    const { cid } = from
    const message = parseNotify(bytes, from)
    if (message === undefined || !this.#boots.hasRoomFor(cid)) {
      this.#refuse(from, message === undefined ? 'malformed' : 'full')
      return
    }
    trace({ type: 'notify', ...message }, 'notify: CID %s: %o', cid, message.fields)
    const taker = this.#takers.shift()
    if (taker !== undefined) taker({ done: false, value: message })
    else if (this.#queue.push(message) > this.#maxPending) this.#queue.shift()
    this.#boots.tell(message)
    callBack(() => void this.emit('message', message))
  }

  #next(): Promise<IteratorResult<NotifyMessage, undefined>> {
    const value = this.#queue.shift()
    if (value !== undefined) return Promise.resolve({ done: false, value })
    if (this.#closed !== undefined) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => this.#takers.push(resolve))
  }

  async #shut(): Promise<void> {
    // In the next microtask, so that whatever is done here meets a #closed that is set.
    await undefined
    for (const reading of this.#readings) reading.stop()
    this.#boots.close()
    for (const taker of this.#takers.splice(0)) taker({ done: true, value: undefined })
    try {
      await this.#stop()
    } finally {
      this.emit('close')
    }
  }
}

/** @throws {TypeError} or {RangeError} for an option that is wrong. */
export function checkNotifyOptions(options: NotifyReceiverOptions): void {
  checkObject('options', options)
  for (const name of ['maxMessageBytes', 'maxConnections', 'maxGuests', 'maxPending'] as const)
    if (options[name] !== undefined) integer(name, options[name], { min: 1 })
  if (options.cid !== undefined) integer('cid', options.cid, { max: Cid.any - 1 })
  checkSwitch('privileged', options.privileged)
  for (const name of ['connectionTimeoutMs', 'quietMs'] as const) duration(name, options[name], 1)
  if (options.clock !== undefined) checkClock(options.clock)
}
