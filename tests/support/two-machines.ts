import { SessionMachine, type SessionOptions } from '@upcall/client'
import { FrameDecoder } from '@upcall/wire'
import { ConnectionMachine } from '../../packages/server/src/machine/connection-machine.js'
import type { Effect as ServerEffect, ConnectionEvent as ServerEvent } from '../../packages/server/src/machine/event.js'
import { TOY_MESSAGE_SIZE, type ToyReply, tokenOf, toyGreeting, toyReply, toyService, toyTicket } from './toy-service.js'

/** How badly the world behaves: each the probability (0 … 1) that one thing goes wrong. */
export interface Weather {
  dialFails: number
  unavailable: number
  /** The connection breaks at some time, or in the middle of a write. */
  cutOff: number
  tears: number
  crashes: number
  /** Answers take their time, some of them longer than the client waits. */
  dawdles: number
  refuses: number
}

const LATENCY_MS = 20
const LONGEST_ANSWER_MS = 1_300

interface Link {
  readonly conn: number
  readonly server: ConnectionMachine
  readonly frames: FrameDecoder
  /** Read from the network and not taken by the server yet; null is EOF. */
  readonly inbox: (Uint8Array | null)[]
  /** What the service has to say to the chunk that it took. */
  readonly replies: Uint8Array[]
  lastToClient: number
  lastToServer: number
  over: boolean
}

/**
 * The client's machine and the server's, with a network between them that delays, splits and breaks. Both get their time from here;
 * it jumps from one thing that is due to the next.
 */
export class TwoMachines {
  readonly client: SessionMachine
  readonly outcomes = new Map<number, string>()
  /** What the server's service was asked to do, in order. */
  readonly executed: number[] = []
  readonly links: Link[] = []
  now = 0
  readonly #random: () => number
  readonly #weather: Weather
  readonly #agenda: { at: number; order: number; run: () => void }[] = []
  #order = 0
  #next = 1

  constructor(weather: Weather, random: () => number) {
    this.#weather = weather
    this.#random = random
    const options: SessionOptions = {
      service: toyService as SessionOptions['service'],
      remote: 'guest',
      dialMs: 500,
      greetingMs: 300,
      pace: { budgetMs: 5_000, minDelayMs: 10, maxDelayMs: 200, random },
      queue: { limit: 100 },
    }
    this.client = new SessionMachine(options, 0)
  }

  /** A request, `ms` from now. Returns its token. */
  request(ms: number, { clean = false, deadlineMs = Number.POSITIVE_INFINITY } = {}): number {
    const token = this.#next++
    const ticket = toyTicket({ token, clean }, this.now + ms + deadlineMs)
    this.#after(ms, () => this.#tellClient({ type: 'request', ticket }))
    return token
  }

  close(): void {
    this.#tellClient({ type: 'close' })
  }

  /** Runs until nothing is due. @throws if that takes more than `limit` steps. */
  run(limit = 20_000): void {
    this.#tellClient({ type: 'wake' })
    for (let step = 0; ; step++) {
      const at = Math.min(this.#agenda[0]?.at ?? Number.POSITIVE_INFINITY, this.client.wakeAt, ...this.links.map(deadlineOf))
      if (at === Number.POSITIVE_INFINITY) return
      if (step === limit) throw new Error(`a livelock: ${limit} steps and something is still due at ${at}`)
      this.now = Math.max(this.now, at)
      while (this.#agenda[0] !== undefined && this.#agenda[0].at <= this.now) this.#agenda.shift()!.run()
      if (this.client.wakeAt <= this.now) this.#tellClient({ type: 'wake' })
      for (const link of this.links) if (deadlineOf(link) <= this.now) this.#tellServer(link, { type: 'wake' })
    }
  }

  // ---- the client's driver

  #tellClient(event: Parameters<SessionMachine['step']>[0]): void {
    for (const effect of this.client.step(event, this.now)) {
      switch (effect.type) {
        case 'dial':
          // Some dials succeed only after the client has given them up: neither side will ever speak on those.
          this.#after(this.#latency() * (this.#happens(this.#weather.dawdles) ? 50 : 1), () => this.#dial(effect.conn))
          break
        case 'write':
          this.#write(this.#link(effect.conn), effect.bytes)
          break
        case 'drop': {
          const link = this.links.find(({ conn }) => conn === effect.conn)
          if (link !== undefined) this.#toServer(link, null)
          break
        }
        case 'reply':
          this.#settle(effect.id, (effect.reply as ToyReply).token === effect.id ? 'ok' : 'the reply to another request')
          break
        case 'fail':
          this.#settle(effect.id, effect.error.outcome)
          break
      }
    }
  }

  #write(link: Link, bytes: Uint8Array): void {
    const torn = this.#happens(this.#weather.tears)
    this.#toServer(link, torn ? bytes.slice(0, Math.floor(this.#random() * bytes.length)) : bytes)
    if (torn) this.#after(this.#random() * LATENCY_MS, () => this.#cutOff(link))
  }

  #settle(token: number, outcome: string): void {
    if (this.outcomes.has(token)) throw new Error(`request ${token} settles twice: ${this.outcomes.get(token)}, ${outcome}`)
    this.outcomes.set(token, outcome)
  }

  #dial(conn: number): void {
    if (this.#happens(this.#weather.dialFails)) {
      this.#tellClient({ type: 'dialFailed', conn, error: new Error('refused'), final: false })
      return
    }
    const server = new ConnectionMachine({ serviceByteTimeoutMs: 400, writeTimeoutMs: 1_000 }, this.now)
    const frames = new FrameDecoder(TOY_MESSAGE_SIZE)
    const link: Link = { conn, server, frames, inbox: [], replies: [], lastToClient: 0, lastToServer: 0, over: false }
    this.links.push(link)
    if (this.#happens(this.#weather.cutOff)) this.#after(this.#random() * 2_000, () => this.#cutOff(link))
    this.#tellClient({ type: 'dialed', conn })
  }

  // ---- the network

  /** In order, each piece with a latency of its own. null is the end. */
  #toServer(link: Link, bytes: Uint8Array | null): void {
    for (const piece of this.#pieces(bytes)) {
      link.lastToServer = Math.max(link.lastToServer, this.now + this.#latency())
      this.#at(link.lastToServer, () => {
        link.inbox.push(piece)
        this.#feedServer(link)
      })
    }
  }

  #toClient(link: Link, bytes: Uint8Array | null): void {
    const { conn } = link
    for (const piece of this.#pieces(bytes)) {
      link.lastToClient = Math.max(link.lastToClient, this.now + this.#latency())
      this.#at(link.lastToClient, () =>
        this.#tellClient(piece === null ? { type: 'ended', conn } : { type: 'bytes', conn, chunk: piece }),
      )
    }
  }

  #cutOff(link: Link): void {
    const error = new Error('reset')
    this.#tellClient({ type: 'ended', conn: link.conn, error })
    this.#tellServer(link, { type: 'error', error })
  }

  #pieces(bytes: Uint8Array | null): (Uint8Array | null)[] {
    if (bytes === null || bytes.length < 2 || this.#random() < 0.5) return [bytes]
    const cut = 1 + Math.floor(this.#random() * (bytes.length - 1))
    return [bytes.slice(0, cut), bytes.slice(cut)]
  }

  // ---- the server's driver

  #feedServer(link: Link): void {
    while (link.server.reads && link.inbox.length > 0) {
      const piece = link.inbox.shift()!
      this.#tellServer(link, piece === null ? { type: 'eof' } : { type: 'chunk', chunk: piece })
    }
  }

  #tellServer(link: Link, event: ServerEvent): void {
    if (link.over) return
    for (const effect of link.server.step(event, this.now)) this.#perform(link, effect)
    this.#feedServer(link)
  }

  #perform(link: Link, effect: ServerEffect): void {
    switch (effect.type) {
      case 'open':
        if (this.#happens(this.#weather.unavailable))
          this.#tellServer(link, { type: 'refused', end: { reason: 'unavailable', byte: effect.byte } })
        else this.#tellServer(link, { type: 'opened', greeting: toyGreeting() })
        break
      case 'receive':
        this.#serve(link, effect.chunk)
        break
      case 'write':
        this.#toClient(link, effect.bytes)
        this.#tellServer(link, { type: 'taken' })
        break
      case 'next': {
        const bytes = link.replies.shift()
        this.#tellServer(link, bytes === undefined ? { type: 'replied' } : { type: 'reply', bytes })
        break
      }
      case 'end':
        this.#toClient(link, null)
        this.#tellServer(link, { type: 'finished' })
        break
      case 'destroy':
        this.#toClient(link, null)
        this.#tellServer(link, { type: 'closed' })
        link.over = true
        break
    }
  }

  /** The service: takes its time, refuses at times, and at times never comes back. */
  #serve(link: Link, chunk: Uint8Array): void {
    const replies = link.frames.push(chunk).map((frame) => {
      const token = tokenOf(frame)
      this.executed.push(token)
      return toyReply({ token, failed: this.#happens(this.#weather.refuses) })
    })
    if (replies.length > 0 && this.#happens(this.#weather.crashes)) return
    const ms = this.#happens(this.#weather.dawdles) ? this.#random() * LONGEST_ANSWER_MS : 0
    this.#after(ms, () => {
      link.replies.push(...replies)
      this.#tellServer(link, { type: 'answered' })
    })
  }

  // ---- time and chance

  #link(conn: number): Link {
    return this.links.find((link) => link.conn === conn)!
  }

  #after(ms: number, run: () => void): void {
    this.#at(this.now + ms, run)
  }

  #at(at: number, run: () => void): void {
    this.#agenda.push({ at, order: this.#order++, run })
    this.#agenda.sort((a, b) => a.at - b.at || a.order - b.order)
  }

  #latency(): number {
    return this.#random() * LATENCY_MS
  }

  #happens(probability: number): boolean {
    return this.#random() < probability
  }
}

function deadlineOf({ server, over }: Link): number {
  return over ? Number.POSITIVE_INFINITY : server.wakeAt
}
