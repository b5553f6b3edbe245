import type { Duplex } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import { Driver } from '@upcall/foundation/driver'
import { isPromise } from '@upcall/foundation/returned'
import { show } from '@upcall/foundation/show'
import { traceOf } from '@upcall/foundation/trace'
import { greetingOf, isAvailable, openSession, repliesOf } from './checked-service.js'
import { Delays } from './delays.js'
import { ConnectionMachine } from './machine/connection-machine.js'
import type { Disconnect } from './machine/end.js'
import type { ConnectionEvent, Effect } from './machine/event.js'
import type { Limits } from './machine/table.js'
import type { Next, ReplySource } from './replies.js'
import type { GuestConnection, GuestService, GuestSession } from './service.js'

/** One accepted connection, as the server's user sees it. */
export interface ServerConnection {
  /** The server numbers its connections from 1. */
  readonly id: number
  /** The other end, as `accept` was told; otherwise empty. */
  readonly remote: string
  /** The byte of the service that has the connection; undefined before that. */
  readonly service: number | undefined
  /** Resolves when the stream has closed; never rejects. */
  readonly closed: Promise<Disconnect>
  /** Ends the connection at once; what the service still works on is dropped. Resolves when the stream has closed. Idempotent. */
  close(): Promise<Disconnect>
}

/** What a service did wrong: it threw, rejected, or returned a value that is not allowed. */
export interface ServiceFault {
  /** The service's byte. */
  readonly service: number
  /** In which of its functions, or in making a reply. */
  readonly where: 'available' | 'open' | 'receive' | 'reply' | 'close'
  readonly error: unknown
}

/** What all connections of a server share. */
export interface Shared {
  /** For the diagnostics channel. */
  readonly server: object
  readonly clock: Clock
  readonly limits: Limits
  service(byte: number): GuestService | undefined
}

const trace = traceOf('server')

/** Drives one {@link ConnectionMachine} over one stream, and owns both: the stream, its listeners and the session end here. */
export class Connection implements ServerConnection, GuestConnection {
  readonly id: number
  readonly remote: string
  readonly closed: Promise<Disconnect>
  readonly #shared: Shared
  readonly #stream: Duplex
  readonly #machine: ConnectionMachine
  readonly #driver: Driver<ConnectionEvent, Effect>
  readonly #delays: Delays
  #resolveClosed!: (end: Disconnect) => void
  #session: GuestSession | undefined
  #service: number | undefined
  /** The byte that the client sent. */
  #asked = 0
  #replies: ReplySource | undefined
  #awaitsDrain = false
  #flowing = true
  #eof: boolean
  #finished: boolean
  #gone = false

  constructor(stream: Duplex, id: number, remote: string, shared: Shared) {
    this.id = id
    this.remote = remote
    this.#shared = shared
    this.#stream = stream
    const { clock, limits } = shared
    this.#machine = new ConnectionMachine(limits, clock.now())
    this.#driver = new Driver({ machine: this.#machine, clock, perform: (effect) => this.#perform(effect) })
    this.#delays = new Delays(clock, id)
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#eof = stream.readableEnded
    this.#finished = stream.writableFinished
  }

  get service(): number | undefined {
    return this.#service
  }

  /** Begins to read. */
  start(): void {
    const stream = this.#stream
    // Stays for good: an error after the end means nothing, but must not be unhandled.
    stream.on('error', (error) => this.#tell({ type: 'error', error }))
    stream.on('close', () => this.#onClose())
    stream.on('finish', () => {
      this.#finished = true
      this.#follow()
    })
    stream.on('drain', () => {
      if (!this.#awaitsDrain) return
      this.#awaitsDrain = false
      this.#tell({ type: 'taken' })
    })
    stream.on('end', () => {
      this.#eof = true
      this.#follow()
    })
    stream.on('data', (chunk: unknown) => this.#onData(chunk))
    if (stream.closed) queueMicrotask(() => this.#onClose())
    else {
      stream.resume()
      this.#tell({ type: 'wake' })
    }
  }

  close(): Promise<Disconnect> {
    this.stop({ reason: 'server-closed' })
    return this.closed
  }

  stop(end: Disconnect): void {
    this.#tell({ type: 'stop', end })
  }

  delay(ms: number): Promise<void> {
    return this.#delays.start(ms)
  }

  #tell(event: ConnectionEvent): void {
    this.#driver.tell(event)
    this.#follow()
  }

  /** Brings the stream in line with the machine's state. */
  #follow(): void {
    if (this.#gone) return
    if (this.#machine.state.kind === 'Ending' && this.#finished) this.#driver.tell({ type: 'finished' })
    if (!this.#machine.reads) return
    if (this.#eof) this.#tell({ type: 'eof' })
    else if (!this.#flowing) {
      this.#flowing = true
      this.#stream.resume()
    }
  }

  #onData(chunk: unknown): void {
    if (!(chunk instanceof Uint8Array)) {
      this.#stream.destroy(
        new TypeError(`accept: the stream must deliver bytes, got ${show(chunk)}. Leave out setEncoding and objectMode.`),
      )
      return
    }
    // Paused before anything else: a stream in memory may deliver the next chunk while this one is answered.
    this.#flowing = false
    this.#stream.pause()
    this.#tell({ type: 'chunk', chunk })
  }

  #perform(effect: Effect): void {
    trace({ server: this.#shared.server, connection: this, effect }, 'connection %d %s: %o', this.id, this.remote, effect)
    switch (effect.type) {
      case 'open':
        this.#open(effect.byte)
        break
      case 'receive':
        this.#receive(effect.chunk)
        break
      case 'next':
        this.#next()
        break
      case 'write':
        this.#write(effect.bytes)
        break
      case 'end':
        this.#stream.end()
        break
      case 'destroy':
        this.#stream.destroy()
        break
    }
  }

  #open(byte: number): void {
    this.#asked = byte
    const service = this.#shared.service(byte)
    const refuse = (reason: 'unknown-service' | 'unavailable') => this.#tell({ type: 'refused', end: { reason, byte } })
    if (service === undefined) {
      refuse('unknown-service')
      return
    }
    const open = () => {
      this.#session = openSession(service, this)
      return greetingOf(this.#session)
    }
    const opened = (greeting: Uint8Array) => {
      this.#service = byte
      this.#tell({ type: 'opened', greeting })
    }
    this.#ask(
      'available',
      () => isAvailable(service, this.#shared.clock.now()),
      (available) => (available ? this.#ask('open', open, opened) : refuse('unavailable')),
    )
  }

  #receive(chunk: Uint8Array): void {
    const answered = (replies: ReplySource) => {
      this.#replies = replies
      if (this.#gone) this.#stopReplies((error) => this.#report('reply', error, true))
      this.#tell({ type: 'answered' })
    }
    this.#ask('receive', () => repliesOf(this.#session!, chunk, this.#shared.clock.now()), answered)
  }

  #next(): void {
    this.#ask(
      'reply',
      () => this.#replies!.next(),
      (reply: Next) => {
        if (reply === undefined) this.#replies = undefined
        this.#tell(reply === undefined ? { type: 'replied' } : { type: 'reply', bytes: reply })
      },
    )
  }

  /** Asks the service for a value, which may come later. What fails is a fault of the service. */
  #ask<T>(where: ServiceFault['where'], ask: () => T | Promise<T>, got: (value: T) => void): void {
    const failed = (error: unknown) => this.#fail(where, error)
    let answer: T | Promise<T>
    try {
      answer = ask()
    } catch (error) {
      failed(error)
      return
    }
    if (answer instanceof Promise) answer.then(got, failed)
    else got(answer)
  }

  #write(bytes: Uint8Array): void {
    let full: boolean
    // Before the write: a stream that is not Node's may drain in the middle of it.
    this.#awaitsDrain = true
    try {
      full = bytes.length > 0 && !this.#stream.write(bytes)
    } catch (error) {
      this.#awaitsDrain = false
      this.#stream.destroy(error instanceof Error ? error : new Error(`write: ${show(error)}`))
      return
    }
    if (full || !this.#awaitsDrain) return
    this.#awaitsDrain = false
    this.#tell({ type: 'taken' })
  }

  /** The service failed: its connection ends, and the server's user learns of it. */
  #fail(where: ServiceFault['where'], error: unknown): void {
    if (where === 'reply') this.#stopReplies((second) => this.#report('reply', second, true))
    const late = this.#machine.state.kind === 'Ended'
    this.#report(where, error, late)
    if (!late) this.#tell({ type: 'failed', error })
  }

  /** `late`: it comes after another end of the connection, and so changes nothing. */
  #report(where: ServiceFault['where'], error: unknown, late = false): void {
    const fault = { server: this.#shared.server, connection: this, service: this.#asked, where, error, ...(late && { late }) }
    const text = `connection %d %s: the service failed in %s${late ? ', after the end' : ''}: %o`
    trace(fault, text, this.id, this.remote, where, error)
  }

  /** No more replies are wanted. */
  #stopReplies(onError: (error: unknown) => void): void {
    const replies = this.#replies
    this.#replies = undefined
    try {
      replies?.stop((error) => this.#report('reply', error, true))
    } catch (error) {
      onError(error)
    }
  }

  #onClose(): void {
    if (this.#gone) return
    this.#driver.tell({ type: 'closed' })
    this.#driver.stop()
    this.#gone = true
    this.#delays.end()
    const { state } = this.#machine
    let end: Disconnect = state.kind === 'Ended' ? state.end : { reason: 'client' }
    const failed = (error: unknown) => {
      this.#report('close', error)
      // Unless an earlier fault ended it.
      if (end.reason !== 'service-error') end = { reason: 'service-error', error }
    }
    this.#stopReplies(failed)
    try {
      this.#closeSession()
    } catch (error) {
      failed(error)
    }
    this.#resolveClosed(end)
  }

  #closeSession(): void {
    const closed: unknown = this.#session?.close()
    if (isPromise(closed)) Promise.resolve(closed).catch((error: unknown) => this.#report('close', error, true))
  }
}
