import { Duplex } from 'node:stream'
import { outcomeError } from './errors.js'
import type { VsockConnection } from './machine/connection.js'

/** What a stream needs of the VM it leads into. */
export interface StreamOwner {
  /** Something was done to the connection: look after it, soon. */
  touch(connection: VsockConnection): void
  now(): number
  /** Calls `fn` after `ms` unless the result is called first; does not keep the process alive. */
  setTimer(ms: number, fn: () => void): () => void
}

export interface VsockStreamOptions {
  readonly subject: string
  readonly highWaterMark: number
  readonly lingerMs: number
}

/** Behind bytes that wait for their reader, fewer than these stay where they cost no object each. */
const CHUNK = 4096

export type Callback = (error?: Error | null) => void

/**
 * One connection into the guest. Half-open: `end()` is SHUTDOWN(send) and leaves the way back open; the guest’s half-close is `'end'`.
 * What the guest sent before it closed or reset the connection is delivered before the stream ends or fails. Bytes that were read
 * by nobody yet cost the guest its credit.
 */
export class VsockStream extends Duplex {
  readonly #connection: VsockConnection
  readonly #owner: StreamOwner
  readonly #options: VsockStreamOptions
  #wanted = false
  /** The reader asked for more than there was. */
  #short = false
  #ended = false
  /** Bytes handed to the readable side, and of those the ones that have left it. */
  #pushed = 0
  #taken = 0
  #writeDone: Callback | undefined
  #cancelLinger: (() => void) | undefined

  /** @internal Made by the device, for a connection that is open. */
  constructor(connection: VsockConnection, owner: StreamOwner, options: VsockStreamOptions) {
    super({ allowHalfOpen: true, readableHighWaterMark: options.highWaterMark, writableHighWaterMark: options.highWaterMark })
    this.#connection = connection
    this.#owner = owner
    this.#options = options
    this.once('end', () => {
      this.#settle()
      // Both of the guest’s halves are closed: there is nobody left to write to.
      if (connection.outputRefused) this.destroy()
    })
  }

  /** The port in the guest. */
  get guestPort(): number {
    return this.#connection.guestPort
  }

  /** The port on the host, which the guest sees as its peer's: 2^30 and up for connections that the host began. */
  get hostPort(): number {
    return this.#connection.hostPort
  }

  /** @internal The connection has changed. */
  news(): void {
    if (this.destroyed) return
    this.#pull()
    this.#settleWrite()
  }

  override _read(): void {
    this.#wanted = true
    this.#pull()
  }

  /** As in Readable; besides, what it returns has left our hands. (`_read` is not called for that once it has nothing to give.) */
  override read(size?: number): unknown {
    const chunk: unknown = super.read(size)
    if (chunk === null && size !== 0) this.#short = true
    this.#pull()
    return chunk
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Callback): void {
    this.#send([chunk], done)
  }

  override _writev(chunks: { chunk: Buffer }[], done: Callback): void {
    this.#send(
      chunks.map(({ chunk }) => chunk),
      done,
    )
  }

  override _final(done: Callback): void {
    this.#connection.end()
    this.#owner.touch(this.#connection)
    done()
  }

  override _destroy(error: Error | null, done: Callback): void {
    this.#cancelLinger?.()
    if (error === null) this.#connection.close(this.#owner.now())
    else this.#connection.reset()
    this.#owner.touch(this.#connection)
    const writeDone = this.#writeDone
    this.#writeDone = undefined
    writeDone?.(error ?? this.#error('done'))
    done(error)
  }

  #send(chunks: readonly Buffer[], done: Callback): void {
    this.#writeDone = done
    for (const chunk of chunks) this.#connection.write(chunk)
    this.#owner.touch(this.#connection)
    this.#settleWrite()
  }

  /** A write is done when a guest buffer has taken it. */
  #settleWrite(): void {
    if (this.#writeDone === undefined) return
    if (this.#connection.outputRefused) {
      // The guest takes no more, but what it said last is worth more than the news of that: the write fails at the stream’s end, or
      // after a while if nobody reads.
      this.#cancelLinger ??= this.#owner.setTimer(this.#options.lingerMs, () => this.destroy(this.#error('done')))
    } else if (this.#connection.outputPending === 0) {
      const done = this.#writeDone
      this.#writeDone = undefined
      done()
    }
  }

  #pull(): void {
    const connection = this.#connection
    while (this.#wanted && !this.#mayWait()) {
      const chunk = connection.read()
      if (chunk === undefined) break
      this.#pushed += chunk.length
      this.#short = false
      this.#wanted = this.push(chunk)
    }
    this.#settle()
    if (this.#ended || this.destroyed || !connection.inputEnded || connection.inputPending > 0) return
    const { outcome } = connection
    if (outcome === 'reset' || outcome === 'violation') {
      if (this.readableLength === 0) this.destroy(this.#error(outcome))
    } else {
      this.#ended = true
      this.push(null)
    }
  }

  /** A guest that sends byte by byte to a reader who is elsewhere would make the readable side a list of as many chunks. */
  #mayWait(): boolean {
    const { inputPending, inputEnded } = this.#connection
    return this.readableLength > 0 && !this.#short && inputPending < CHUNK && !inputEnded
  }

  /** Gives the guest credit for what has left the readable side; what `unshift` puts back has been paid for. */
  #settle(): void {
    const taken = this.#pushed - this.readableLength
    if (taken <= this.#taken) return
    this.#connection.consumed(taken - this.#taken, this.#owner.now())
    this.#taken = taken
    this.#owner.touch(this.#connection)
  }

  #error(outcome: 'reset' | 'violation' | 'done'): Error {
    return outcomeError(this.#options.subject, outcome)
  }
}
