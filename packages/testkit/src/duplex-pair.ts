import { Duplex } from 'node:stream'
import { checkObject, integer } from '@upcall/foundation/check'
import { socketError } from './socket-error.js'

export interface DuplexPairOptions {
  /** How many bytes each end buffers in each direction before it holds the writer back. Default: Node's. */
  highWaterMark?: number | undefined
  /** Whether an end stays writable after the other end has ended. Default true, as {@link https://nodejs.org/api/net.html | net} calls it. */
  allowHalfOpen?: boolean | undefined
}

/**
 * Two ends of one connection in memory. They behave like the two ends of a socket:
 * - Each write arrives at the other end as one chunk, copied, in a later tick.
 * - A writer is held back while the other end does not read.
 * - `end()` ends one direction. `destroy()` is EOF at the other end, whose writes then fail with EPIPE. It is a reset if it leaves bytes
 *   unread. `destroy(error)` is always a reset: the other end fails with ECONNRESET.
 */
export function duplexPair(options: DuplexPairOptions = {}): [Duplex, Duplex] {
  checkObject('duplexPair: options', options)
  if (options.highWaterMark !== undefined) integer('duplexPair: highWaterMark', options.highWaterMark)
  return PairEnd.pair(options)
}

class PairEnd extends Duplex {
  #peer!: PairEnd
  /** The peer's write that waits until this end reads. */
  #held: ((error?: Error) => void) | undefined

  static pair({ highWaterMark, allowHalfOpen = true }: DuplexPairOptions): [Duplex, Duplex] {
    const settings = { allowHalfOpen, ...(highWaterMark === undefined ? {} : { highWaterMark }) }
    const a = new PairEnd(settings)
    const b = new PairEnd(settings)
    a.#peer = b
    b.#peer = a
    return [a, b]
  }

  override _read(): void {
    const resume = this.#held
    this.#held = undefined
    resume?.()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    // A socket has taken the bytes when write() returns: the caller may reuse the buffer, and destroy() does not discard them.
    const bytes = Buffer.from(chunk)
    process.nextTick(() => {
      const peer = this.#peer
      if (peer.destroyed) done(socketError('EPIPE', 'write'))
      else if (bytes.length === 0 || peer.push(bytes)) done()
      else peer.#held = done
    })
  }

  override _final(done: () => void): void {
    process.nextTick(() => {
      if (!this.#peer.destroyed) this.#peer.push(null)
      done()
    })
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const peer = this.#peer
    const reset = error !== null || this.readableLength > 0
    const ended = this.writableFinished
    const held = this.#held
    this.#held = undefined
    process.nextTick(() => {
      held?.(socketError('ECONNRESET', 'write'))
      if (peer.destroyed) return
      if (reset && !(peer.readableEnded && peer.writableFinished)) peer.destroy(socketError('ECONNRESET', 'read'))
      else if (!ended) peer.push(null)
    })
    done(error)
  }
}
