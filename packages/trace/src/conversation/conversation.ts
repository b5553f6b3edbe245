import { type Arch, DEVICE_MANAGER_BYTE, MessageType, messageTypeName, readHeader, UPCALL_PORT } from '@upcall/wire'
import { explainMessage, type MessageField } from '../explain.js'
import { archOf, type Decoded, decodeMessage, titleOf } from '../message.js'
import { type Direction, type Frame, Framer } from './framer.js'

export interface ConversationOptions {
  /** The guest's. Default: each CPU request tells by its size; until one does, `fallbackArch`. */
  arch?: Arch | undefined
  /** Default x86_64. */
  fallbackArch?: Arch | undefined
  /** A stream of something else: its bytes are not looked into, except for a handshake. Default false. */
  raw?: boolean | undefined
  /** What is fed may begin in the middle of a connection, as in a capture that was started late. Default false. */
  midway?: boolean | undefined
  /** The guest's port, where it is known without a handshake. On another one than upcall's anything may be said. Default 219. */
  port?: number | undefined
}

/** What was said, or what it means. `at` is the time that was passed in; `offset` counts the bytes of the direction. */
export type ConversationEvent = { readonly at: number; readonly direction: Direction; readonly offset: number } & (
  | {
      readonly type: 'handshake'
      /** Without the newline. */
      readonly text: string
      readonly bytes: Uint8Array
      /** Of `OK`: milliseconds since `CONNECT`. */
      readonly rttMs?: number
    }
  | { readonly type: 'service'; readonly byte: number }
  | {
      readonly type: 'message'
      readonly bytes: Uint8Array
      readonly decoded: Decoded
      /** In a few words: `ADD_MMIO 0xd0000000+0x1000 irq 5`. */
      readonly title: string
      readonly fields: MessageField[]
      /** Of a reply: milliseconds since its request; of the greeting: since the service byte. */
      readonly rttMs?: number
      /** What breaks the protocol. */
      readonly wrong?: string
      /** The byte of the message that does, if it is one. */
      readonly wrongAt?: number
    }
  | {
      /** `garbage`: bytes outside of messages. `cut`: the stream ends inside a message. */
      readonly type: 'garbage' | 'cut'
      readonly bytes: Uint8Array
      readonly what: string
    }
  /** Bytes that are not looked into: `raw`, another service than the device manager, another port than upcall's. */
  | { readonly type: 'data'; readonly bytes: Uint8Array }
  | {
      readonly type: 'end'
      /** How many requests have no reply, where that will not change. */
      readonly unanswered?: number
    }
  /** The session as seen from outside, named as in docs/machines.md: Dialing, Greeting, Ready, Busy, Closed. */
  | { readonly type: 'state'; readonly state: string; readonly previous: string }
)

type Body<E = ConversationEvent> = E extends unknown ? Omit<E, 'at' | 'direction' | 'offset'> : never

/** Requests of which the times are kept. A client that sends more without a reply is out of order anyway. */
const MOST_PENDING = 1024

/** One connection, both directions. Pure: the time is passed in, in milliseconds of any monotonic clock. */
export class Conversation {
  readonly #options: ConversationOptions
  readonly #framers: Readonly<Record<Direction, Framer>>
  #arch: Arch
  #state = 'Dialing'
  #connectAt: number | undefined
  #serviceAt: number | undefined
  #greeted: boolean
  /** Other bytes than upcall's mean that this is not upcall, rather than that upcall is wrong. */
  #doubtful = false
  #raw: boolean
  /** Requests without a reply, oldest first. */
  #requests: { type: number; at: number }[] = []
  /** More of them, of which nothing else is known. */
  #more = 0
  readonly #ended: Record<Direction, boolean> = { 'to-guest': false, 'to-host': false }
  #events: ConversationEvent[] = []

  constructor(options: ConversationOptions = {}) {
    const { arch, fallbackArch = 'x86_64', raw = false, midway = false, port = UPCALL_PORT } = options
    this.#options = options
    this.#arch = arch ?? fallbackArch
    this.#raw = raw
    this.#greeted = midway
    this.#framers = { 'to-guest': new Framer('to-guest', { raw, midway }), 'to-host': new Framer('to-host', { raw, midway }) }
    this.#servedAt(port)
  }

  /** The next bytes of a direction, however they are chunked. @returns what they tell. The bytes in it are copies. */
  feed(direction: Direction, chunk: Uint8Array, now: number): ConversationEvent[] {
    const framer = this.#framers[direction]
    framer.feed(chunk, (frame) => this.#frame(direction, frame, now))
    if (!this.#raw && this.#isForeign(direction)) this.#becomeRaw(now)
    return this.#told()
  }

  /** The direction has ended. Idempotent. */
  end(direction: Direction, now: number): ConversationEvent[] {
    if (this.#ended[direction]) return []
    this.#ended[direction] = true
    const framer = this.#framers[direction]
    framer.end((frame) => this.#frame(direction, frame, now))
    const unanswered = this.#requests.length + this.#more
    const final = direction === 'to-host' && unanswered > 0
    this.#tell(direction, framer.offset, now, { type: 'end', ...(final && { unanswered }) })
    if (direction === 'to-host' || this.#ended['to-host']) this.#become('Closed', direction, now)
    return this.#told()
  }

  /** A guest says nothing before the service byte. On other ports than upcall's anything may be said. */
  #isForeign(direction: Direction): boolean {
    const { pending, mayBeMessage } = this.#framers[direction]
    if (this.#options.midway || this.#greeted || pending.length === 0 || mayBeMessage) return false
    return this.#doubtful || (direction === 'to-host' && this.#serviceAt === undefined)
  }

  #becomeRaw(now: number): void {
    this.#raw = true
    for (const direction of ['to-guest', 'to-host'] as const)
      for (const frame of this.#framers[direction].toData()) this.#frame(direction, frame, now)
  }

  #frame(direction: Direction, frame: Frame, now: number): void {
    const { offset, ...body } = frame
    switch (body.type) {
      case 'handshake':
        return void this.#handshake(direction, offset, body, now)
      case 'service':
        this.#tell(direction, offset, now, body)
        if (body.byte !== DEVICE_MANAGER_BYTE) return void this.#becomeRaw(now)
        this.#serviceAt = now
        return void this.#become('Greeting', direction, now)
      case 'message':
        if (direction === 'to-guest') this.#request(body.bytes, offset, now)
        else this.#reply(body.bytes, offset, now)
        return
      default:
        this.#tell(direction, offset, now, body)
        if (body.type === 'data' && !this.#raw) this.#becomeRaw(now)
    }
  }

  #handshake(direction: Direction, offset: number, body: Body & { type: 'handshake' }, now: number): void {
    const rtt = direction === 'to-host' && this.#connectAt !== undefined && { rttMs: now - this.#connectAt }
    if (direction === 'to-guest') {
      this.#connectAt = now
      this.#servedAt(Number(/\d+/.exec(body.text)?.[0]))
    }
    this.#tell(direction, offset, now, { ...body, ...rtt })
  }

  #servedAt(port: number): void {
    this.#doubtful = port !== UPCALL_PORT
    this.#framers['to-guest'].doubtful = this.#doubtful
  }

  #request(bytes: Uint8Array, offset: number, now: number): void {
    this.#arch = this.#options.arch ?? archOf(bytes) ?? this.#arch
    this.#message('to-guest', bytes, offset, now, undefined, undefined)
    if (this.#more > 0 || this.#requests.length >= MOST_PENDING) this.#more++
    else this.#requests.push({ type: readHeader(bytes).messageType, at: now })
    this.#become('Busy', 'to-guest', now)
  }

  #reply(bytes: Uint8Array, offset: number, now: number): void {
    const { messageType } = readHeader(bytes)
    if (!this.#greeted) {
      this.#greeted = true
      const wrong = messageType === MessageType.CONNECT ? undefined : `${nameOf(messageType)} came where the greeting was due`
      const rttMs = this.#serviceAt === undefined ? undefined : now - this.#serviceAt
      this.#message('to-host', bytes, offset, now, rttMs, wrong)
    } else {
      const request = this.#requests.shift()
      const known = request !== undefined || this.#more > 0 || this.#options.midway
      if (request === undefined && this.#more > 0) this.#more--
      const other = request !== undefined && request.type !== messageType && `a reply to ${nameOf(request.type)} was due`
      const wrong = other || (known ? undefined : 'there is no request that it could answer')
      this.#message('to-host', bytes, offset, now, request && now - request.at, wrong)
    }
    this.#become(this.#requests.length + this.#more > 0 ? 'Busy' : 'Ready', 'to-host', now)
  }

  #message(
    direction: Direction,
    bytes: Uint8Array,
    offset: number,
    now: number,
    rttMs: number | undefined,
    outside: string | undefined,
  ): void {
    const about = { direction: direction === 'to-guest' ? ('request' as const) : ('reply' as const), arch: this.#arch }
    const decoded = decodeMessage(bytes, { ...about, offset })
    const fields = explainMessage(bytes, about)
    const field = fields.find((each) => each.wrong !== undefined)
    const wrong = field === undefined ? outside : `${field.name}: ${field.wrong}`
    this.#tell(direction, offset, now, {
      ...{ type: 'message', bytes, decoded, title: titleOf(decoded), fields },
      ...(rttMs !== undefined && { rttMs }),
      ...(wrong !== undefined && { wrong }),
      ...(field?.wrongAt !== undefined && { wrongAt: field.wrongAt }),
    })
  }

  #become(state: string, direction: Direction, now: number): void {
    const previous = this.#state
    if (state === previous) return
    this.#state = state
    this.#tell(direction, this.#framers[direction].offset, now, { type: 'state', state, previous })
  }

  #tell(direction: Direction, offset: number, at: number, body: Body): void {
    this.#events.push({ at, direction, offset, ...body } as ConversationEvent)
  }

  #told(): ConversationEvent[] {
    const events = this.#events
    this.#events = []
    return events
  }
}

function nameOf(type: number): string {
  return messageTypeName(type) ?? `type ${type}`
}
