import type { Direction, VsockEnd, VsockPacket } from '@upcall/trace'
import { type CapturedPacket, Conversation, type ConversationEvent, type ConversationOptions } from '@upcall/trace'
import { UPCALL_PORT } from '@upcall/wire'
import type { ConnectionEvent } from './event.js'

export interface ConnectionsOptions extends Pick<ConversationOptions, 'arch' | 'fallbackArch'> {
  /** Only connections of which one end has it. Default: all. */
  port?: number | undefined
}

/** What a packet of a capture tells: what was said, or what it does to its connection. */
export type CaptureEvent =
  | ConnectionEvent
  /** A packet without payload. */
  | (Ends & { readonly type: 'packet'; readonly conn: number; readonly direction: Direction; readonly packet: VsockPacket })
  /** The capture begins inside of the connection. */
  | (Ends & { readonly type: 'midway'; readonly conn: number })

interface Ends {
  readonly host: VsockEnd
  readonly guest: VsockEnd
}

interface Connection extends Ends {
  readonly conn: number
  conversation: Conversation
  readonly ended: Set<Direction>
  /** Only connect packets were seen. */
  fresh: boolean
}

const HOST_CID = 2n
/** Connections that are remembered. Of more, that with the longest silence is forgotten; a capture can have millions. */
const MOST_CONNECTIONS = 4096

const RST = 3
const SHUTDOWN = 4
const SHUTDOWN_SEND = 2
const DIRECTIONS = ['to-guest', 'to-host'] as const

/** Finds the connections of a capture, and follows each. Pure. */
export class Connections {
  readonly #options: ConnectionsOptions
  /** In the order of their last packets. */
  readonly #all = new Map<string, Connection>()
  #count = 0

  constructor(options: ConnectionsOptions) {
    this.#options = options
  }

  /** The next packet. Without a `time`, no round trip is told. */
  packet(packet: VsockPacket, { time, length, bytes }: Pick<CapturedPacket, 'time' | 'length' | 'bytes'>): CaptureEvent[] {
    const { source, destination, op, payload } = packet
    const { port } = this.#options
    if (port !== undefined && source.port !== port && destination.port !== port) return []
    const { connection, told } = this.#find(packet)
    const { conn, host, guest, conversation } = connection
    const direction = source === guest || sameEnd(source, guest) ? 'to-host' : 'to-guest'
    const now = time ?? Number.NaN
    if (op !== 'connect') connection.fresh = false
    if (op !== 'payload') told.push({ type: 'packet', conn, direction, packet, host, guest })
    if (payload.length > 0) told.push(...eventsOf(connection, conversation.feed(direction, payload, now)))
    if (op === 'disconnect')
      for (const each of endedBy(packet, direction)) {
        connection.ended.add(each)
        told.push(...eventsOf(connection, conversation.end(each, now)))
      }
    // What comes next does not follow what was kept.
    if (bytes.length < length && op === 'payload') {
      told.push(...this.#unfinished(connection, now))
      connection.conversation = this.#converse(guest, true)
    }
    return told
  }

  /** The capture ends: messages of which a part is there. The connections themselves may go on. */
  end(): CaptureEvent[] {
    return [...this.#all.values()].flatMap((connection) => this.#unfinished(connection, Number.NaN))
  }

  #find(packet: VsockPacket): { connection: Connection; told: CaptureEvent[] } {
    const { source, destination, op } = packet
    const ends = endsOf(source, destination)
    const key = `${ends.host.cid}:${ends.host.port}-${ends.guest.cid}:${ends.guest.port}`
    const other = `${ends.guest.cid}:${ends.guest.port}-${ends.host.cid}:${ends.host.port}`
    const used = this.#all.has(key) || !this.#all.has(other) ? key : other
    const known = this.#all.get(used)
    this.#all.delete(used)
    const told: CaptureEvent[] = []
    const again = known !== undefined && op === 'connect' && !known.fresh
    if (known !== undefined && !again) {
      this.#all.set(used, known)
      return { connection: known, told }
    }
    if (known !== undefined) told.push(...this.#unfinished(known, Number.NaN))
    const midway = op !== 'connect'
    const connection: Connection = {
      ...{ ...ends, conn: ++this.#count, conversation: this.#converse(ends.guest, midway) },
      ...{ ended: new Set<Direction>(), fresh: true },
    }
    this.#all.set(used, connection)
    if (midway) told.push({ type: 'midway', conn: connection.conn, host: ends.host, guest: ends.guest })
    if (this.#all.size > MOST_CONNECTIONS) {
      const [oldest, silent] = this.#all.entries().next().value!
      this.#all.delete(oldest)
      told.push(...this.#unfinished(silent, Number.NaN))
    }
    return { connection, told }
  }

  #converse({ port }: VsockEnd, midway: boolean): Conversation {
    const { arch, fallbackArch } = this.#options
    // In the middle of another service nothing tells what its bytes are.
    return new Conversation({ arch, fallbackArch, midway, port, raw: midway && port !== UPCALL_PORT })
  }

  /** Only what is incomplete: no packet has said that the connection ends. */
  #unfinished(connection: Connection, now: number): ConnectionEvent[] {
    const { conversation, ended } = connection
    const events = DIRECTIONS.filter((each) => !ended.has(each)).flatMap((each) => conversation.end(each, now))
    return eventsOf(
      connection,
      events.filter(({ type }) => type !== 'end' && type !== 'state'),
    )
  }
}

/** A reset ends both directions. A shutdown of virtio says what its sender will not do any more. */
function endedBy({ virtio }: VsockPacket, direction: Direction): readonly Direction[] {
  if (virtio === undefined) return [direction]
  const view = new DataView(virtio.buffer, virtio.byteOffset, virtio.byteLength)
  const op = view.getUint16(30, true)
  if (op === RST) return DIRECTIONS
  return op === SHUTDOWN && (view.getUint32(32, true) & SHUTDOWN_SEND) === 0 ? [] : [direction]
}

/** The host has CID 2. Between other machines, the guest is the end with upcall's port, or the end that is spoken to first. */
function endsOf(source: VsockEnd, destination: VsockEnd): Ends {
  const toHost = { host: destination, guest: source }
  const toGuest = { host: source, guest: destination }
  if ((source.cid === HOST_CID) !== (destination.cid === HOST_CID)) return source.cid === HOST_CID ? toGuest : toHost
  return source.port === UPCALL_PORT && destination.port !== UPCALL_PORT ? toHost : toGuest
}

function sameEnd(one: VsockEnd, other: VsockEnd): boolean {
  return one.cid === other.cid && one.port === other.port
}

function eventsOf({ conn }: Connection, events: readonly ConversationEvent[]): ConnectionEvent[] {
  return events.map((event) => {
    if (!('rttMs' in event) || !Number.isNaN(event.rttMs)) return { ...event, conn }
    const { rttMs: _unknown, ...rest } = event
    return { ...rest, conn } as ConnectionEvent
  })
}
