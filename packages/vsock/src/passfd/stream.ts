import { Duplex } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import { errnoOf } from '@upcall/foundation/error'
import type { Medium } from './medium.js'

/** The first pause before a descriptor whose other end has gone is looked at again. Each pause is twice as long as the last. */
const FIRST_PAUSE_MS = 50
/** The longest. */
const LONGEST_PAUSE_MS = 500

export interface PassedOptions {
  /** What the descriptor was opened for. */
  readonly readable: boolean
  readonly writable: boolean
  readonly keep: boolean
  readonly clock: Clock
}

type Done = (error?: Error | null) => void

/**
 * A descriptor that another process passed, as a stream.
 *
 * - A descriptor that cannot be read says nothing, and ends when all that was written to it is out. A descriptor that cannot be written
 *   fails with `EBADF` at the first write.
 * - Its end is the descriptor's: the writers of a FIFO have closed it, the file is read, the terminal is gone. A write that fails ends
 *   everything: unless it has an end of its own to tell first, and can be read to that.
 * - With `keep` both mean that the other end is away. The descriptor is looked at again each time something is written to the stream, and
 *   every half second at the latest; what was written waits. Such a stream ends with its owner.
 */
export class PassedStream extends Duplex {
  readonly #medium: Medium
  readonly #options: PassedOptions
  #reading = false
  /** The pause before the next look at a descriptor that has nothing to read; undefined while one reads, or waits for bytes. */
  #readLook: (() => void) | undefined
  #readPauseMs = FIRST_PAUSE_MS
  #writeLook: (() => void) | undefined
  #writePauseMs = FIRST_PAUSE_MS
  #unwritten: { bytes: Buffer; done: Done } | undefined

  constructor(medium: Medium, options: PassedOptions) {
    super({ allowHalfOpen: true })
    this.#medium = medium
    this.#options = options
  }

  override _read(): void {
    // A descriptor that is only written to has nothing to say, and is not at its end.
    if (this.#options.readable && !this.#reading) this.#pull()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    if (!this.#options.writable) return void done(badDescriptor())
    if (this.#readLook) this.#look()
    this.#unwritten = { bytes: chunk, done }
    this.#push()
  }

  override _final(done: Done): void {
    if (this.#options.writable) this.#medium.end()
    if (!this.#options.readable) this.push(null)
    done()
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#readLook?.()
    this.#writeLook?.()
    this.#medium.close()
    const unwritten = this.#unwritten
    this.#unwritten = undefined
    unwritten?.done(error ?? Object.assign(new Error('the descriptor was closed'), { code: 'ECANCELED' }))
    done(error)
  }

  #pull(): void {
    this.#reading = true
    this.#medium.read((error, bytes) => {
      if (this.destroyed) return
      if (error && !isGone(error)) return void this.destroy(error)
      if (bytes === undefined || bytes.length === 0) return void this.#atEnd()
      this.#reading = false
      this.#readPauseMs = FIRST_PAUSE_MS
      this.push(bytes)
    })
  }

  #atEnd(): void {
    const { keep, clock } = this.#options
    if (!keep) return void this.push(null)
    this.#readLook = clock.setTimer(this.#readPauseMs, () => this.#look())
    this.#readPauseMs = Math.min(2 * this.#readPauseMs, LONGEST_PAUSE_MS)
  }

  #look(): void {
    this.#readLook?.()
    this.#readLook = undefined
    this.#pull()
  }

  #push(): void {
    const { bytes, done } = this.#unwritten!
    this.#medium.write(bytes, (error, count) => {
      if (this.destroyed) return
      if (error) return void this.#notWritten(error)
      this.#writePauseMs = FIRST_PAUSE_MS
      if (count < bytes.length) {
        this.#unwritten = { bytes: bytes.subarray(count), done }
        return void this.#push()
      }
      this.#unwritten = undefined
      done()
    })
  }

  #notWritten(error: Error): void {
    const { keep, readable, clock } = this.#options
    if (keep && isGone(error)) {
      this.#writeLook = clock.setTimer(this.#writePauseMs, () => this.#push())
      this.#writePauseMs = Math.min(2 * this.#writePauseMs, LONGEST_PAUSE_MS)
      return
    }
    const done = this.#unwritten?.done
    this.#unwritten = undefined
    if (readable) done?.(error)
    else this.destroy(error)
  }
}

/** A FIFO without a reader, or a socket whose peer has closed (EPIPE); a terminal that has been hung up (EIO). */
function isGone(error: Error): boolean {
  return errnoOf(error) === 'EPIPE' || errnoOf(error) === 'EIO'
}

function badDescriptor(): Error {
  const message = 'the descriptor was opened for reading only, and the guest sent something to it'
  return Object.assign(new Error(message), { code: 'EBADF', syscall: 'write' })
}
