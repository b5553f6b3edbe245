import { close, read, write } from 'node:fs'
import type { Binding, Descriptor } from '../native/binding.js'

/** What is behind a descriptor: one read and one write at a time, each of which calls back once, and not after `close`. */
export interface Medium {
  /** With the bytes that came, none at the end. */
  read(done: (error: Error | null, bytes?: Buffer) => void): void
  /** With how many of the bytes went. */
  write(bytes: Buffer, done: (error: Error | null, count: number) => void): void
  /** Nothing more will be written. */
  end(): void
  close(): void
}

const CHUNK = 64 * 1024
/** What is read is copied out of it at once. */
const scratch = Buffer.allocUnsafeSlow(CHUNK)

/** A FIFO, a terminal or a socket: epoll says when there is something to do. The descriptor is this object's, and does not block. */
export class PolledMedium implements Medium {
  readonly #binding: Binding
  readonly #descriptor: Descriptor
  readonly #isSocket: boolean
  #reader: ((error: Error | null, bytes?: Buffer) => void) | undefined
  #writer: { bytes: Buffer; done: (error: Error | null, count: number) => void } | undefined
  #closed = false

  constructor(binding: Binding, descriptor: Descriptor, isSocket: boolean) {
    this.#binding = binding
    this.#descriptor = descriptor
    this.#isSocket = isSocket
  }

  read(done: (error: Error | null, bytes?: Buffer) => void): void {
    this.#reader = done
    if (!this.#tryToRead()) this.#watch()
  }

  write(bytes: Buffer, done: (error: Error | null, count: number) => void): void {
    // The kernel refuses none at all here, and there would be nothing to wait for.
    if (bytes.length === 0) return void done(null, 0)
    this.#writer = { bytes, done }
    if (!this.#tryToWrite()) this.#watch()
  }

  end(): void {
    if (!this.#isSocket) return
    try {
      this.#binding.shutdown(this.#descriptor)
    } catch {
      // Its peer has gone: it knows no end any more.
    }
  }

  close(): void {
    this.#closed = true
    this.#reader = this.#writer = undefined
    this.#binding.close(this.#descriptor)
  }

  #watch(): void {
    if (this.#closed) return
    const { READABLE, WRITABLE } = this.#binding
    const events = (this.#reader ? READABLE : 0) | (this.#writer ? WRITABLE : 0)
    if (events === 0) this.#binding.unwatch(this.#descriptor)
    else this.#binding.watch(this.#descriptor, events, (seen) => this.#onReady(seen))
  }

  #onReady(events: number): void {
    // 0: an error condition, which the calls name. Both are due then.
    const { READABLE, WRITABLE } = this.#binding
    if (this.#writer && (events === 0 || events & WRITABLE)) this.#tryToWrite()
    if (this.#reader && (events === 0 || events & READABLE)) this.#tryToRead()
    this.#watch()
  }

  /** false: it has to be waited for. */
  #tryToRead(): boolean {
    const done = this.#reader!
    let count: number | undefined
    try {
      count = this.#binding.read(this.#descriptor, scratch)
    } catch (error) {
      this.#reader = undefined
      done(error as Error)
      return true
    }
    if (count === undefined) return false
    this.#reader = undefined
    done(null, Buffer.from(scratch.subarray(0, count)))
    return true
  }

  #tryToWrite(): boolean {
    const { bytes, done } = this.#writer!
    let count: number | undefined
    try {
      count = this.#binding.write(this.#descriptor, bytes)
    } catch (error) {
      this.#writer = undefined
      done(error as Error, 0)
      return true
    }
    if (count === undefined) return false
    this.#writer = undefined
    done(null, count)
    return true
  }
}

/** A file: epoll knows nothing of it, so the threads of libuv read and write it, where its offset is. The number is this object's. */
export class FileMedium implements Medium {
  readonly #fd: number
  #busy = 0
  #closed = false

  constructor(fd: number) {
    this.#fd = fd
  }

  read(done: (error: Error | null, bytes?: Buffer) => void): void {
    this.#busy++
    read(this.#fd, Buffer.allocUnsafe(CHUNK), 0, CHUNK, null, (error, count, bytes) => {
      if (this.#stillOpen()) done(error, error ? undefined : bytes.subarray(0, count))
    })
  }

  write(bytes: Buffer, done: (error: Error | null, count: number) => void): void {
    if (bytes.length === 0) return void done(null, 0)
    this.#busy++
    write(this.#fd, bytes, 0, bytes.length, null, (error, count) => {
      if (this.#stillOpen()) done(error, count)
    })
  }

  end(): void {}

  close(): void {
    this.#closed = true
    this.#closeWhenIdle()
  }

  #stillOpen(): boolean {
    this.#busy--
    if (this.#closed) this.#closeWhenIdle()
    return !this.#closed
  }

  /** A number that a thread still works on must not become another file's. */
  #closeWhenIdle(): void {
    if (this.#busy === 0) close(this.#fd, () => {})
  }
}
