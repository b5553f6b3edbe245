import { Duplex } from 'node:stream'
import { JOINED } from '@upcall/foundation/join'
import type { DirectSocket } from './direct.js'
import { outcomeError } from './errors.js'
import type { Connection } from './machine/connection.js'
import type { ConnectionOutcome } from './machine/life.js'

/** What a stream needs of the VM it leads into. */
export interface StreamOwner {
  now(): number
  /** Calls `fn` after `ms` unless the result is called first; does not keep the process alive. */
  setTimer(ms: number, fn: () => void): () => void
  /** The stream wants no more news of the connection. */
  forget(): void
  /** A way for the bytes of a stream that is joined with this one, if there is one. */
  direct(guest: Duplex, host: Duplex): DirectSocket | undefined
}

export interface GuestStreamOptions {
  readonly subject: string
  readonly highWaterMark: number
  readonly lingerMs: number
}

/** After bytes that wait for their reader, fewer than these stay for a while where they cost no object each. */
const CHUNK = 4096
/**
 * For so many milliseconds, or for one millisecond for each piece that waits for the reader, whichever is more. Then they are handed on: a
 * reader may look how much there is, and ask for nothing before it is enough.
 */
const HOLD_MS = 20

export type Callback = (error?: Error | null) => void

/**
 * One connection into the guest. Half-open: `end()` is SHUTDOWN(send) and leaves the way back open; the guest's half-close is `'end'`.
 * What the guest sent before it closed or reset the connection is delivered before the stream ends or fails. Bytes that wait for their
 * reader cost the guest its credit, except those that a `read(n)` waits with until all `n` are there: `n` may be more than `bufferBytes`
 * and more than the guest's own buffer.
 *
 * **Writing.** The callback of `write()` comes when guest buffers have taken the bytes, or, after `end()`, when the connection has
 * them. `'finish'` comes when guest buffers have taken all of them. A guest that takes no more (`shutdown(SHUT_RD)`, or it has closed)
 * may still have something to say, so a write that fails leaves the readable half alone:
 *
 * - Its callback, and that of `end()`, get the error at once: `EPIPE`, or `ECONNRESET` after a reset. Later writes fail alike.
 * - There is no `'finish'`. A `pipe()` into the stream runs on to its end; its bytes are dropped.
 * - When the readable half has ended, the stream is destroyed with that error. If nothing has ever been read from the stream, this comes
 *   `lingerMs` after the failure. A reader that has begun may take its time.
 *
 * **Closing.** `destroy()` after `end()` still delivers everything that was written, then closes; what the guest sends meanwhile is
 * dropped. A guest that takes nothing for `lingerMs` is reset. `destroy()` without `end()` closes in order if guest buffers have
 * taken everything, and otherwise resets the connection, as `destroy(error)` always does. A Linux guest cannot tell a reset from an
 * orderly end when it reads: both are its EOF.
 */
export interface VsockStream extends Duplex {
  /** The port in the guest. */
  readonly guestPort: number
  /** The port on the host, which the guest sees as its peer's: 2^30 and up for connections that the host began. */
  readonly hostPort: number
}

/** The stream of a connection that is open. */
export class GuestStream extends Duplex implements VsockStream {
  readonly #connection: Connection
  readonly #owner: StreamOwner
  readonly #options: GuestStreamOptions
  #wanted = false
  /** The reader asked for more than there was, or what waits after that has waited long enough. */
  #short = false
  /** Pieces handed to the readable side since it was last empty. */
  #pieces = 0
  #cancelHold: (() => void) | undefined
  /** The reader asked for so many bytes at once and has yet to get them; 0 if it waits for none. */
  #wish = 0
  #ended = false
  /** Bytes handed to the readable side, and of those the ones that have left it. */
  #pushed = 0
  #taken = 0
  /** `read` was called: there is a reader. */
  #reading = false
  #writeDone: Callback | undefined
  #finalDone: Callback | undefined
  /** `end()` was called: the connection gets all there is at once, so that `destroy()` cannot lose it. */
  #ending = false
  /** Destroyed, while the guest has yet to take what was written. */
  #departing = false
  /** Why bytes that were written never reach the guest, and the callbacks of `end()` to be told of it. */
  #lost: Error | undefined
  #onLost: Callback[] = []
  #cancelLinger: (() => void) | undefined
  #direct: DirectSocket | undefined

  /** Called when the connection is over, whatever the stream has yet to yield. */
  onGone: (() => void) | undefined

  constructor(connection: Connection, owner: StreamOwner, options: GuestStreamOptions) {
    super({ allowHalfOpen: true, readableHighWaterMark: options.highWaterMark, writableHighWaterMark: options.highWaterMark })
    this.#connection = connection
    this.#owner = owner
    this.#options = options
    this.once('end', () => {
      this.#settle()
      this.#conclude()
    })
  }

  get guestPort(): number {
    return this.#connection.guestPort
  }

  get hostPort(): number {
    return this.#connection.hostPort
  }

  /** The connection has changed. */
  news(): void {
    if (this.#departing) this.#depart()
    if (this.#connection.state === 'closed') this.onGone?.()
    if (this.destroyed) return
    this.#settleWrite()
    this.#pull()
    this.#conclude()
    this.#direct?.news()
  }

  /** Called by `joinStreams`. */
  [JOINED](host: Duplex): void {
    this.#direct = this.#owner.direct(this, host)
  }

  override _read(): void {
    this.#wanted = true
    this.#pull()
  }

  /** As in Readable. Besides, the guest gets credit for what it returns. (`_read` is not called for that once it has nothing to give.) */
  override read(size?: number): unknown {
    if (size !== 0) this.#reading = true
    const chunk: unknown = super.read(size)
    if (size !== 0) {
      if (chunk === null) this.#short = true
      this.#wish = chunk === null ? (size ?? 0) : 0
    }
    this.#pull()
    return chunk
  }

  /** As in Writable; the callback is told of bytes that the guest did not take, though that is not the stream's end. */
  override write(chunk: unknown, encoding?: BufferEncoding | Callback, done?: Callback): boolean {
    const callback = typeof encoding === 'function' ? encoding : done
    const told: Callback | undefined = callback && ((error) => callback(error ?? this.#lost ?? error))
    return typeof encoding === 'string' ? super.write(chunk, encoding, told) : super.write(chunk, told)
  }

  /** As in Writable; the callback is told of a loss at once, as that of `write` is. */
  override end(...given: unknown[]): this {
    const at = given.findIndex((it) => typeof it === 'function')
    if (at >= 0) given[at] = this.#toldOnce(given[at] as Callback)
    this.#ending = true
    ;(super.end as (...given: unknown[]) => this).apply(this, given)
    if (!this.destroyed) this.#writeIsDone()
    return this
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
    this.#finalDone = done
    this.#connection.end()
    this.#settleWrite()
  }

  override _destroy(error: Error | null, done: Callback): void {
    this.#cancelLinger?.()
    this.#cancelHold?.()
    this.#direct?.close()
    const connection = this.#connection
    if (error !== null) {
      connection.reset()
    } else if (this.#ending && connection.outputPending > 0) {
      connection.end()
      this.#departing = true
      this.#armLinger(connection.outputPending)
      connection.consumed(this.#pushed - this.#taken, this.#owner.now())
      // A listener of the stream may be destroying it, and the call that it was called from goes on.
      this.#taken = this.#pushed
      this.#depart()
    } else {
      connection.close(this.#owner.now())
    }
    if (!this.#departing) this.#owner.forget()
    const reason = error ?? this.#error('aborted')
    this.#writeIsDone(reason)
    this.#finalDone?.(reason)
    this.#finalDone = undefined
    done(error)
  }

  #send(chunks: readonly Buffer[], done: Callback): void {
    this.#writeDone = done
    for (const chunk of chunks) this.#connection.write(chunk)
    if (this.#ending) this.#writeIsDone()
    else this.#settleWrite()
  }

  #writeIsDone(error?: Error): void {
    const done = this.#writeDone
    this.#writeDone = undefined
    done?.(error)
  }

  /** A write is done when guest buffers have taken it; and when it is lost, because in Node its failure would be the reader's too. */
  #settleWrite(): void {
    const connection = this.#connection
    if (connection.outputLost) this.#lose()
    if (connection.outputPending > 0) return
    this.#writeIsDone()
    if (this.#lost === undefined) {
      const finalDone = this.#finalDone
      this.#finalDone = undefined
      finalDone?.()
    }
    this.#conclude()
  }

  #lose(): void {
    if (this.#lost !== undefined) return
    const error = this.#error(this.#connection.outcome ?? 'done')
    this.#lost = error
    for (const tell of this.#onLost.splice(0)) tell(error)
    this.#cancelLinger = this.#owner.setTimer(this.#options.lingerMs, () => {
      if (!this.#reading) this.destroy(error)
    })
  }

  #toldOnce(done: Callback): Callback {
    let told = false
    const tell = (error?: Error | null) => {
      if (!told) done(error)
      told = true
    }
    if (this.#lost === undefined) this.#onLost.push(tell)
    else process.nextTick(tell, this.#lost)
    return tell
  }

  /** The guest takes no more and has said all that it will say. */
  #conclude(): void {
    if (this.destroyed || !this.readableEnded || !this.#connection.outputRefused) return
    const { outcome = 'done' } = this.#connection
    this.destroy(this.#lost ?? (outcome === 'done' || this.writableFinished ? undefined : this.#error(outcome)))
  }

  /** The stream is gone, and what it was given goes on to the guest; what the guest sends goes nowhere. */
  #depart(): void {
    const connection = this.#connection
    for (let chunk = connection.read(); chunk !== undefined; chunk = connection.read()) {
      connection.consumed(chunk.length, this.#owner.now())
    }
    if (connection.outputPending === 0) {
      this.#departing = false
      this.#cancelLinger?.()
      connection.close(this.#owner.now())
      this.#owner.forget()
    }
  }

  /** @param before bytes that the guest had yet to take when the time began to run. */
  #armLinger(before: number): void {
    this.#cancelLinger = this.#owner.setTimer(this.#options.lingerMs, () => {
      const { outputPending } = this.#connection
      if (outputPending < before) {
        this.#armLinger(outputPending)
      } else {
        this.#connection.reset()
        this.#depart()
      }
    })
  }

  #pull(): void {
    const connection = this.#connection
    while (this.#wanted && !this.#mayWait()) {
      const chunk = connection.read()
      if (chunk === undefined) break
      this.#pieces = this.readableLength === 0 ? 1 : this.#pieces + 1
      this.#pushed += chunk.length
      this.#short = false
      this.#wanted = this.push(chunk)
    }
    this.#settle()
    if (this.#wanted && connection.inputPending > 0 && !this.destroyed) this.#hold()
    if (this.#ended || this.destroyed || !connection.inputEnded || connection.inputPending > 0) return
    const { outcome = 'done' } = connection
    if (outcome === 'violation' || (outcome !== 'done' && !connection.inputComplete)) {
      if (this.readableLength === 0) this.destroy(this.#error(outcome))
    } else {
      this.#ended = true
      this.push(null)
    }
  }

  /** A guest that sends byte by byte to a reader that is busy would make the readable side a list of as many chunks. */
  #mayWait(): boolean {
    const { inputPending, inputEnded } = this.#connection
    return this.readableLength > 0 && !this.#short && inputPending < CHUNK && !inputEnded
  }

  #hold(): void {
    this.#cancelHold ??= this.#owner.setTimer(Math.max(HOLD_MS, this.#pieces), () => {
      this.#cancelHold = undefined
      this.#short = true
      this.#pull()
    })
  }

  /**
   * Gives the guest credit for what has left the readable side; what `unshift` puts back has been paid for. So has what is too little for a
   * reader that asked for more at once: it may be more than the guest's window, and each would wait for the other.
   */
  #settle(): void {
    const held = this.readableLength < this.#wish ? 0 : this.readableLength
    const taken = this.#pushed - held
    if (taken <= this.#taken) return
    this.#connection.consumed(taken - this.#taken, this.#owner.now())
    this.#taken = taken
  }

  #error(outcome: ConnectionOutcome): Error {
    return outcomeError(undefined, this.#options.subject, outcome)
  }
}
