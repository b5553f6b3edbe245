import type { Duplex } from 'node:stream'
import { type Clock, setLongTimer } from '@upcall/foundation/clock'
import { show } from '@upcall/foundation/show'
import type { OutsideEvent } from './machine/event.js'
import type { Dial } from './options.js'

type Tell = (event: OutsideEvent) => void

interface Connection {
  readonly controller: AbortController
  stream?: Duplex
  /** The session was told of the stream. */
  dialed?: true
  /** Resolves when nothing of it is open. */
  readonly gone: Promise<void>
}

/** The one owner of every dial and stream of a client; each is known by its number. What happens to them is told as events. */
export class Connections {
  readonly #dial: Dial
  readonly #tell: Tell
  readonly #open = new Map<number, Connection>()

  constructor(dial: Dial, tell: Tell) {
    this.#dial = dial
    this.#tell = tell
  }

  /** Begins one attempt. */
  dial(conn: number): void {
    const controller = new AbortController()
    let gone!: () => void
    const connection: Connection = { controller, gone: new Promise((resolve) => (gone = resolve)) }
    this.#open.set(conn, connection)
    const close = () => {
      this.#open.delete(conn)
      gone()
    }
    // Inside the promise, so that a dialer may throw instead of rejecting.
    new Promise<Duplex>((resolve) => resolve(this.#dial({ signal: controller.signal }))).then(
      (stream) => {
        if (!isDuplex(stream)) {
          close()
          this.#tell({ type: 'dialFailed', conn, error: new TypeError('dial: must resolve with a Duplex stream'), final: true })
          return
        }
        connection.stream = stream
        try {
          stream.once('close', close)
          if (stream.closed) close()
          this.#adopt(conn, connection, stream)
        } catch (error) {
          // It may be unable to tell of its end, too.
          close()
          stream.destroy()
          this.#tell(connection.dialed ? { type: 'ended', conn, error } : { type: 'dialFailed', conn, error, final: false })
        }
      },
      (error) => {
        close()
        this.#tell({ type: 'dialFailed', conn, error, final: isFinal(error) })
      },
    )
  }

  /** @throws What the stream's own functions throw. */
  #adopt(conn: number, connection: Connection, stream: Duplex): void {
    let failed: unknown
    // Stays for as long as the stream exists: an error after the session has dropped it means nothing, but must not be unhandled.
    stream.on('error', (error) => {
      failed = error
      this.#tell({ type: 'ended', conn, error })
    })
    if (connection.controller.signal.aborted) {
      stream.destroy()
      return
    }
    connection.dialed = true
    this.#tell({ type: 'dialed', conn })
    if (stream.destroyed || stream.readableEnded) {
      this.#tell({ type: 'ended', conn, error: failed })
      return
    }
    stream.on('data', (chunk: unknown) => {
      if (chunk instanceof Uint8Array) this.#tell({ type: 'bytes', conn, chunk })
      else
        stream.destroy(
          new TypeError(`dial: the stream must give bytes, got ${show(chunk)}; leave out setEncoding and objectMode`),
        )
    })
    stream.on('end', () => this.#tell({ type: 'ended', conn }))
    stream.on('close', () => this.#tell({ type: 'ended', conn, error: failed }))
    // A handshake may have left it paused, and a listener alone does not set such a stream going.
    stream.resume()
  }

  /** One message, in one write. */
  write(conn: number, bytes: Uint8Array): void {
    const stream = this.#open.get(conn)?.stream
    if (stream === undefined || !stream.writable) {
      this.#tell({ type: 'unsent', conn, error: stream?.errored ?? undefined })
      return
    }
    try {
      stream.write(bytes)
    } catch (error) {
      // How much of it was sent is unknown, as with a write that fails later.
      stream.destroy(error instanceof Error ? error : new Error(`write: ${show(error)}`))
    }
  }

  /** Aborts the dial or destroys the stream. */
  drop(conn: number): void {
    const connection = this.#open.get(conn)
    connection?.controller.abort()
    connection?.stream?.destroy()
  }

  /** Resolves when nothing is open, or after `timeoutMs` in which a dialer or a stream did not react. */
  async allGone(clock: Clock, timeoutMs: number): Promise<void> {
    let cancel: (() => void) | undefined
    const enough = new Promise<void>((resolve) => (cancel = setLongTimer(clock, timeoutMs, resolve)))
    try {
      await Promise.race([this.#nothingOpen(), enough])
    } finally {
      cancel?.()
    }
  }

  async #nothingOpen(): Promise<void> {
    // A close() in the middle of the session's effects, from a listener for instance, may come before a dial among them.
    await undefined
    while (this.#open.size > 0) await Promise.all([...this.#open.values()].map(({ gone }) => gone))
  }
}

// A value from outside may throw when it is looked at. This runs in a promise's handler, where nothing would catch it.

function isDuplex(value: unknown): value is Duplex {
  if (typeof value !== 'object' || value === null) return false
  try {
    return ['pipe', 'on', 'once', 'resume', 'write', 'destroy'].every((name) => typeof Reflect.get(value, name) === 'function')
  } catch {
    return false
  }
}

function isFinal(error: unknown): boolean {
  try {
    return typeof error === 'object' && error !== null && 'retryable' in error && error.retryable === false
  } catch {
    return false
  }
}
