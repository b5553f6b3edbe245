import type { Duplex } from 'node:stream'
import { debuglog } from 'node:util'
import { checkFunction, ignoreRejection, isPromise, show } from './check.js'
import type { Clock } from './clock.js'
import { ConnectionMachine, type Effect, type Event, type Limits } from './machine/connection.js'
import type { Disconnect } from './machine/end.js'
import type { GuestConnection, GuestService, GuestSession } from './service.js'

/** One accepted connection, as the server's user sees it. */
export interface ServerConnection {
  /** Counts the server's connections, from 1. */
  readonly id: number
  /** Who is at the other end, as `accept` was told; otherwise empty. */
  readonly remote: string
  /** The byte of the service that has the connection; undefined before one does. */
  readonly service: number | undefined
  /** Resolves when the stream has closed; never rejects. */
  readonly closed: Promise<Disconnect>
  /** Ends the connection at once; what the service still works on is dropped. Resolves when the stream has closed. Twice is once. */
  close(): Promise<Disconnect>
}

/** What all connections of a server share. */
export interface Shared {
  readonly clock: Clock
  readonly limits: Limits
  service(byte: number): GuestService | undefined
  /** A service failed a connection, which ends for it. */
  onServiceError(connection: ServerConnection, fault: ServiceFault): void
}

/** What a service did wrong: threw, rejected, or gave what it may not give. */
export interface ServiceFault {
  /** The service's byte. */
  readonly service: number
  /** In which of its functions, or in making a reply. */
  readonly where: 'available' | 'open' | 'receive' | 'reply' | 'close'
  readonly error: unknown
}

const log = debuglog('upcall')

// setTimeout fires at once beyond this; an early tick is harmless.
const LONGEST_TIMER_MS = 0x7fff_ffff

/** Drives one {@link ConnectionMachine} over one stream, and owns both: the stream, its listeners, the timers and the session end here. */
export class Connection implements ServerConnection, GuestConnection {
  readonly id: number
  readonly remote: string
  readonly closed: Promise<Disconnect>
  readonly #shared: Shared
  readonly #stream: Duplex
  readonly #machine: ConnectionMachine
  readonly #delays = new Set<() => void>()
  #resolveClosed!: (end: Disconnect) => void
  #session: GuestSession | undefined
  #service: number | undefined
  /** The byte that the client sent. */
  #asked = 0
  #writing: Iterator<Uint8Array> | undefined
  #timer: { readonly at: number; cancel(): void } | undefined
  #flowing = true
  #eof: boolean
  #finished: boolean
  #gone = false

  constructor(stream: Duplex, id: number, remote: string, shared: Shared) {
    this.id = id
    this.remote = remote
    this.#shared = shared
    this.#stream = stream
    this.#machine = new ConnectionMachine(shared.limits, shared.clock.now())
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
    // Stays for good: an error behind the end is nobody's concern, but must not be unhandled.
    stream.on('error', (error) => this.#run({ name: 'error', error }))
    stream.on('close', () => this.#onClose())
    stream.on('finish', () => {
      this.#finished = true
      this.#sync()
    })
    stream.on('drain', () => this.#onDrain())
    stream.on('end', () => {
      this.#eof = true
      this.#sync()
    })
    stream.on('data', (chunk: unknown) => {
      if (!(chunk instanceof Uint8Array)) {
        stream.destroy(
          new TypeError(`accept: the stream must give bytes, got ${show(chunk)}; leave out setEncoding and objectMode`),
        )
        return
      }
      // Paused before anything else: a stream in memory may bring the next chunk while this one is being answered.
      this.#flowing = false
      stream.pause()
      this.#run({ name: 'chunk', chunk })
    })
    if (stream.closed) queueMicrotask(() => this.#onClose())
    else {
      stream.resume()
      this.#sync()
    }
  }

  close(): Promise<Disconnect> {
    this.stop({ reason: 'server-closed' })
    return this.closed
  }

  stop(end: Disconnect): void {
    this.#run({ name: 'stop', end })
  }

  delay(ms: number): Promise<void> {
    const { clock } = this.#shared
    const promise = new Promise<void>((resolve, reject) => {
      // Beyond its range setTimeout fires at once.
      if (typeof ms !== 'number' || !(ms >= 0 && ms <= LONGEST_TIMER_MS))
        throw new RangeError(`ms: must be a number of milliseconds in 0 … ${LONGEST_TIMER_MS}, got ${show(ms)}`)
      const over = () => reject(new Error(`connection ${this.id}: ended during a delay of ${ms} ms`))
      if (this.#gone) {
        over()
        return
      }
      const drop = () => {
        cancel()
        over()
      }
      const cancel = clock.setTimer(ms, () => {
        this.#delays.delete(drop)
        resolve()
      })
      this.#delays.add(drop)
    })
    // A service may have stopped waiting; that is no unhandled rejection.
    promise.catch(() => {})
    return promise
  }

  #run(event: Event): void {
    for (const effect of this.#machine.on(event, this.#shared.clock.now())) this.#perform(effect)
    this.#sync()
  }

  #perform(effect: Effect): void {
    switch (effect.do) {
      case 'open':
        this.#open(effect.byte)
        return
      case 'receive':
        this.#receive(effect.chunk)
        return
      case 'write':
        this.#beginWriting(effect.chunks)
        return
      case 'end':
        this.#stream.end()
        return
      case 'destroy':
        this.#stream.destroy()
        return
    }
  }

  #open(byte: number): void {
    this.#asked = byte
    const service = this.#shared.service(byte)
    if (service === undefined) {
      this.#run({ name: 'refused', end: { reason: 'unknown-service', byte } })
      return
    }
    let available: boolean
    try {
      available = service.available === undefined || checkAvailable(service.available(this.#shared.clock.now()))
    } catch (error) {
      this.#fail('available', error)
      return
    }
    if (!available) {
      this.#run({ name: 'refused', end: { reason: 'unavailable', byte } })
      return
    }
    let greeting: Uint8Array
    try {
      const session: unknown = service.open(this)
      if (isPromise(session)) {
        ignoreRejection(session)
        throw new TypeError('open: must not return a promise')
      }
      checkSession(session)
      // From here on it is closed with the connection, whatever else is wrong with it.
      this.#session = session
      greeting = checkBytes('greeting', session.greeting)
      checkFunction('receive', session.receive)
    } catch (error) {
      this.#fail('open', error)
      return
    }
    this.#service = byte
    this.#run({ name: 'opened', greeting })
  }

  /** The service failed: the connection ends for it, and the server's owner learns of it. */
  #fail(where: ServiceFault['where'], error: unknown): void {
    if (this.#machine.state.name === 'Ended') {
      log('connection %d %s: the service failed in %s, behind the end: %o', this.id, this.remote, where, error)
      return
    }
    this.#tell(where, error)
    this.#run({ name: 'failed', error })
  }

  #tell(where: ServiceFault['where'], error: unknown): void {
    log('connection %d %s: the service failed in %s: %o', this.id, this.remote, where, error)
    this.#shared.onServiceError(this, { service: this.#asked, where, error })
  }

  #receive(chunk: Uint8Array): void {
    let replies: unknown
    let promised: Promise<unknown> | undefined
    try {
      replies = this.#session!.receive(chunk, this.#shared.clock.now())
      if (isPromise(replies)) promised = Promise.resolve(replies)
    } catch (error) {
      this.#fail('receive', error)
      return
    }
    if (promised === undefined) this.#replied(replies)
    else
      promised.then(
        (replies) => this.#replied(replies),
        (error: unknown) => this.#fail('receive', error),
      )
  }

  #replied(replies: unknown): void {
    try {
      checkIterable(replies)
    } catch (error) {
      this.#fail('receive', error)
      return
    }
    this.#run({ name: 'replied', replies })
  }

  #beginWriting(chunks: Iterable<Uint8Array>): void {
    try {
      const writing: unknown = chunks[Symbol.iterator]()
      if (typeof writing !== 'object' || writing === null)
        throw new TypeError(`receive: must give an iterable of replies, whose iterator is ${show(writing)}`)
      this.#writing = writing as Iterator<Uint8Array>
    } catch (error) {
      this.#fail('receive', error)
      return
    }
    this.#write()
  }

  /** Pulls replies only as fast as the client takes them. */
  #write(): void {
    while (this.#writing !== undefined) {
      let reply: Uint8Array | undefined
      try {
        reply = replyOf(this.#writing.next())
      } catch (error) {
        try {
          this.#stopWriting()
        } catch (second) {
          // The first error is the one to tell.
          log('connection %d %s: the service failed in what makes the replies, too: %o', this.id, this.remote, second)
        }
        this.#fail('reply', error)
        return
      }
      // What makes the replies may have ended the connection.
      if (this.#writing === undefined) return
      if (reply === undefined) {
        this.#writing = undefined
        this.#run({ name: 'flushed' })
        return
      }
      try {
        if (reply.length > 0 && !this.#stream.write(reply)) return
      } catch (error) {
        this.#stream.destroy(error instanceof Error ? error : new Error(`write: ${show(error)}`))
        return
      }
    }
  }

  /** No more replies are wanted: a generator that makes them comes to its `finally`. */
  #stopWriting(): void {
    const writing = this.#writing
    this.#writing = undefined
    ignoreRejection(writing?.return?.())
  }

  #onDrain(): void {
    if (this.#writing === undefined) return
    this.#run({ name: 'progress' })
    this.#write()
  }

  /** Brings the stream and the timer in line with the machine's state. */
  #sync(): void {
    if (this.#gone) return
    if (this.#machine.state.name === 'Ending' && this.#finished) {
      this.#run({ name: 'finished' })
      return
    }
    if (this.#machine.reads) {
      if (this.#eof) {
        this.#run({ name: 'eof' })
        return
      }
      if (!this.#flowing) {
        this.#flowing = true
        this.#stream.resume()
      }
    }
    this.#arm(this.#machine.deadline)
  }

  #arm(deadline: number | undefined): void {
    if (this.#timer?.at === deadline) return
    this.#timer?.cancel()
    this.#timer = undefined
    if (deadline === undefined || deadline === Number.POSITIVE_INFINITY) return
    const { clock } = this.#shared
    const cancel = clock.setTimer(Math.min(Math.max(0, deadline - clock.now()), LONGEST_TIMER_MS), () => {
      this.#timer = undefined
      this.#run({ name: 'tick' })
    })
    this.#timer = { at: deadline, cancel }
  }

  #onClose(): void {
    if (this.#gone) return
    this.#run({ name: 'closed' })
    this.#gone = true
    this.#arm(undefined)
    for (const drop of this.#delays) drop()
    this.#delays.clear()
    const { state } = this.#machine
    let end: Disconnect = state.name === 'Ended' ? state.end : { reason: 'client' }
    for (const stop of [() => this.#stopWriting(), () => this.#closeSession()]) {
      try {
        stop()
      } catch (error) {
        this.#tell('close', error)
        // The first fault is the one that ended it.
        if (end.reason !== 'service-error') end = { reason: 'service-error', error }
      }
    }
    this.#resolveClosed(end)
  }

  #closeSession(): void {
    const closed: unknown = this.#session?.close()
    if (!isPromise(closed)) return
    Promise.resolve(closed).catch((error: unknown) =>
      log('connection %d %s: the service failed in close, behind the end: %o', this.id, this.remote, error),
    )
  }
}

// Services come from outside, some of them without types: what they give is looked at before it can do harm to others.

function checkAvailable(value: unknown): boolean {
  ignoreRejection(value)
  if (isPromise(value)) throw new TypeError('available: must not return a promise')
  if (typeof value !== 'boolean') throw new TypeError(`available: must return true or false, got ${show(value)}`)
  return value
}

/** A session that cannot be told of the end is none; the rest of it is looked at once it can. */
function checkSession(session: unknown): asserts session is GuestSession {
  if (typeof session !== 'object' || session === null) throw new TypeError(`open: must return a session, got ${show(session)}`)
  checkFunction('close', (session as Partial<GuestSession>).close)
}

function checkIterable(value: unknown): asserts value is Iterable<Uint8Array> {
  if (typeof value !== 'object' || typeof (value as Partial<Iterable<unknown>> | null)?.[Symbol.iterator] !== 'function')
    throw new TypeError(`receive: must give an iterable of replies, got ${value === null ? null : typeof value}`)
}

/** Undefined behind the last one. */
function replyOf(result: IteratorResult<Uint8Array>): Uint8Array | undefined {
  ignoreRejection(result)
  if (typeof result !== 'object' || result === null || isPromise(result))
    throw new TypeError(`reply: an iterator must give { done, value }, got ${show(result)}`)
  return result.done === true ? undefined : checkBytes('reply', result.value)
}

function checkBytes(name: string, value: Uint8Array): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${name}: must be a Uint8Array, got ${typeof value}`)
  return value
}
