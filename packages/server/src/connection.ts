import type { Duplex } from 'node:stream'
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
}

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
    stream.on('data', (chunk: Uint8Array) => {
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
    const service = this.#shared.service(byte)
    if (service === undefined) {
      this.#run({ name: 'refused', end: { reason: 'unknown-service', byte } })
      return
    }
    let greeting: Uint8Array
    try {
      if (service.available?.(this.#shared.clock.now()) === false) {
        this.#run({ name: 'refused', end: { reason: 'unavailable', byte } })
        return
      }
      this.#session = service.open(this)
      greeting = checkBytes('greeting', this.#session.greeting)
    } catch (error) {
      this.#run({ name: 'failed', error })
      return
    }
    this.#service = byte
    this.#run({ name: 'opened', greeting })
  }

  #receive(chunk: Uint8Array): void {
    let replies: ReturnType<GuestSession['receive']>
    try {
      replies = this.#session!.receive(chunk, this.#shared.clock.now())
    } catch (error) {
      this.#run({ name: 'failed', error })
      return
    }
    if (isPromise(replies)) {
      replies.then(
        (replies) => this.#replied(replies),
        (error: unknown) => this.#run({ name: 'failed', error }),
      )
    } else this.#replied(replies)
  }

  #replied(replies: Iterable<Uint8Array>): void {
    if (isIterable(replies)) this.#run({ name: 'replied', replies })
    else
      this.#run({
        name: 'failed',
        error: new TypeError(`receive: must give an iterable of replies, got ${replies === null ? null : typeof replies}`),
      })
  }

  #beginWriting(chunks: Iterable<Uint8Array>): void {
    try {
      this.#writing = chunks[Symbol.iterator]()
    } catch (error) {
      this.#run({ name: 'failed', error })
      return
    }
    this.#write()
  }

  /** Pulls replies only as fast as the client takes them. */
  #write(): void {
    for (;;) {
      let next: IteratorResult<Uint8Array> | undefined
      try {
        next = this.#writing?.next()
        if (next !== undefined && next.done !== true) checkBytes('reply', next.value)
      } catch (error) {
        try {
          this.#stopWriting()
        } catch {
          // The first error is the one to tell.
        }
        this.#run({ name: 'failed', error })
        return
      }
      if (next === undefined) return
      if (next.done === true) {
        this.#writing = undefined
        this.#run({ name: 'flushed' })
        return
      }
      if (next.value.length > 0 && !this.#stream.write(next.value)) return
    }
  }

  /** No more replies are wanted: a generator that makes them comes to its `finally`. */
  #stopWriting(): void {
    const writing = this.#writing
    this.#writing = undefined
    writing?.return?.()
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
    for (const stop of [() => this.#stopWriting(), () => this.#session?.close()]) {
      try {
        stop()
      } catch (error) {
        end = { reason: 'service-error', error }
      }
    }
    this.#resolveClosed(end)
  }
}

// Services come from outside, some of them without types: what they give is looked at before it can do harm to others.

function isPromise(value: ReturnType<GuestSession['receive']>): value is Promise<Iterable<Uint8Array>> {
  return typeof (value as Partial<Promise<unknown>> | undefined)?.then === 'function'
}

function isIterable(value: unknown): value is Iterable<Uint8Array> {
  return typeof value === 'object' && typeof (value as Partial<Iterable<unknown>> | null)?.[Symbol.iterator] === 'function'
}

function checkBytes(name: string, value: Uint8Array): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${name}: must be a Uint8Array, got ${typeof value}`)
  return value
}
