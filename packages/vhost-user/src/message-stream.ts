import { onAbort } from '@upcall/foundation/abort'
import { checkObject, checkSignal, checkSwitch, wrongType, wrongValue } from '@upcall/foundation/check'
import type { Message, MessageSocket, ReceiveOptions, SendOptions } from '@upcall/foundation/message-socket'
import { Queue } from '@upcall/foundation/queue'
import { abortedError, endedError, outcomeError, tooLongError } from './errors.js'
import type { Connection } from './machine/connection.js'
import type { OutgoingMessage } from './machine/message-queue.js'
import type { StreamOwner } from './stream.js'

/**
 * One SEQPACKET connection into the guest: whole messages, both ways.
 *
 * **Sending.** The promise of `send()` resolves when guest buffers have taken the message. The guest may have so many bytes unread as its
 * buffer takes, and so many messages as it has KiB in it. A message longer than `maxMessageBytes` is refused (`EMSGSIZE`), an empty one
 * is a `RangeError`: Linux sends none, and a reader would take it for the end. A message that waits when the guest makes its buffer smaller
 * than it is rejects with `EMSGSIZE`, too; if a part of it has left, the connection is reset (`EPROTO`). A signal takes back a message of
 * which nothing has left.
 *
 * **Receiving.** Messages that wait for `receive()` cost the guest its credit. A message that the guest never finishes, and an empty one,
 * are dropped. A guest whose message is longer than `bufferBytes` is reset (`EPROTO`): Linux refuses to send it. What the guest sent before
 * it closed or reset the connection is delivered before the end or the error.
 *
 * **Closing.** `end()` is SHUTDOWN(send) after the messages that wait. `destroy()` closes in order if all of them are out, and otherwise resets
 * the connection, as `destroy(error)` always does.
 */
export interface VsockMessageStream extends MessageSocket {
  /** The port in the guest. */
  readonly guestPort: number
  /** The port on the host, which the guest sees as its peer's: 2^30 and up for connections that the host began. */
  readonly hostPort: number
}

interface Sending {
  readonly message: OutgoingMessage
  readonly resolve: () => void
  readonly reject: (error: Error) => void
  readonly unlisten: () => void
}

/** The message stream of a connection that is open. */
export class GuestMessages implements VsockMessageStream {
  readonly #connection: Connection
  readonly #owner: Pick<StreamOwner, 'now' | 'forget'>
  readonly #subject: string
  /** In the order of the calls. */
  readonly #sending = new Set<Sending>()
  readonly #receiving = new Queue<undefined, Message | undefined>()
  #ending = false
  #errored: Error | null = null
  /** Why nothing comes any more: the guest's end is null. */
  #over: Error | null | undefined
  #isClosed = false
  #close: () => void = () => {}

  readonly closed: Promise<void>
  /** Called when the connection is over, whatever the stream has yet to yield. */
  onGone: (() => void) | undefined

  constructor(connection: Connection, owner: Pick<StreamOwner, 'now' | 'forget'>, subject: string) {
    this.#connection = connection
    this.#owner = owner
    this.#subject = subject
    this.closed = new Promise((resolve) => {
      this.#close = resolve
    })
  }

  get guestPort(): number {
    return this.#connection.guestPort
  }

  get hostPort(): number {
    return this.#connection.hostPort
  }

  get maxMessageBytes(): number {
    return this.#connection.maxMessageBytes
  }

  get errored(): Error | null {
    return this.#errored
  }

  /** The connection has changed. */
  news(): void {
    if (this.#connection.state === 'closed') this.onGone?.()
    this.#settle()
  }

  async send(data: Uint8Array, options: SendOptions = {}): Promise<void> {
    checkObject('options', options)
    const { eor = false, signal } = options
    if (!(data instanceof Uint8Array)) wrongType('message', 'a Uint8Array', data)
    if (data.length === 0) wrongValue('message', 'of at least 1 byte', data)
    checkSwitch('eor', eor)
    checkSignal(signal)
    if (signal?.aborted) throw abortedError('send', this.#subject, signal.reason)
    const connection = this.#connection
    if (this.#isClosed || connection.outputRefused) throw this.#reason
    if (this.#ending) throw endedError(this.#subject)
    if (data.length > connection.maxMessageBytes) throw tooLongError(this.#subject, data.length, connection.maxMessageBytes)
    const message: OutgoingMessage = { data, eor, state: 'waiting' }
    await new Promise<void>((resolve, reject) => {
      const unlisten = onAbort(signal, (reason) => {
        this.#sending.delete(sending)
        connection.withdraw(message)
        // The rest of it leaves all the same, and the caller has its array back.
        if (message.state === 'begun') message.data = message.data.slice()
        reject(abortedError('send', this.#subject, reason))
        // It may have been the last thing that an end waited for, and nothing else tells of that.
        this.#settle()
      })
      const sending: Sending = { message, resolve, reject, unlisten }
      this.#sending.add(sending)
      connection.send(message)
    })
  }

  async receive(options: ReceiveOptions = {}): Promise<Message | undefined> {
    checkObject('options', options)
    const { signal } = options
    checkSignal(signal)
    if (signal?.aborted) throw abortedError('receive', this.#subject, signal.reason)
    const received = this.#receiving.add(undefined, signal, (reason) => abortedError('receive', this.#subject, reason))
    this.#settle()
    return received
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (let message = await this.receive(); message !== undefined; message = await this.receive()) yield message.data
  }

  end(): void {
    if (this.#ending || this.#isClosed) return
    this.#ending = true
    this.#connection.end()
    this.#settle()
  }

  destroy(error?: Error): void {
    if (this.#isClosed) return
    const connection = this.#connection
    if (error !== undefined) connection.reset()
    else connection.close(this.#owner.now())
    this.#finish(error ?? null, error ?? this.#error('aborted'))
  }

  /** What has come to the connection is told to those that wait for it. */
  #settle(): void {
    this.#settleSends()
    this.#settleReceives()
    if (this.#isClosed || this.#over === undefined) return
    const connection = this.#connection
    if (connection.state === 'closed') {
      this.#finish(this.#over, this.#over)
    } else if (this.#ending && connection.outputPending === 0) {
      connection.close(this.#owner.now())
      this.#finish(null, null)
    }
  }

  #settleSends(): void {
    for (const sending of this.#sending) {
      const { message, resolve, reject, unlisten } = sending
      const { state, data } = message
      if (state === 'waiting' || state === 'begun') return
      this.#sending.delete(sending)
      unlisten()
      if (state === 'sent') resolve()
      else if (state === 'too long') reject(tooLongError(this.#subject, data.length, this.maxMessageBytes))
      else reject(this.#reason)
    }
  }

  #settleReceives(): void {
    while (this.#receiving.size > 0) {
      const message = this.#take()
      if (message === undefined && this.#over === undefined) return
      if (message === undefined && this.#over) this.#receiving.failFirst(this.#over)
      else this.#receiving.shift(message)
    }
    this.#lookForEnd()
  }

  #take(): Message | undefined {
    if (this.#isClosed) return undefined
    const message = this.#connection.readMessage()
    if (message === undefined) {
      this.#lookForEnd()
      return undefined
    }
    const { data, eor } = message
    const { buffer, byteOffset, length } = data
    this.#connection.consumed(length, this.#owner.now())
    // A plain Uint8Array: the methods of a Buffer differ (slice).
    return { data: new Uint8Array(buffer, byteOffset, length), eor, sentBytes: length }
  }

  /** Without a message that waits, the end of what the guest sends is the end of what comes. */
  #lookForEnd(): void {
    const connection = this.#connection
    if (this.#over !== undefined || !connection.inputEnded || connection.inputMessages > 0) return
    const { outcome = 'done' } = connection
    const failed = outcome === 'violation' || (outcome !== 'done' && !connection.inputComplete)
    this.#over = failed ? this.#error(outcome) : null
  }

  /** @param reason what those that still wait reject with; null is the end for readers. */
  #finish(errored: Error | null, reason: Error | null): void {
    this.#isClosed = true
    this.#errored = errored
    this.#over = reason
    this.#owner.forget()
    this.#settleSends()
    for (const sending of this.#sending) {
      sending.unlisten()
      sending.reject(this.#reason)
    }
    this.#sending.clear()
    this.#settleReceives()
    this.#close()
  }

  /** Why messages no longer go out. */
  get #reason(): Error {
    return (this.#isClosed && this.#over) || this.#error(this.#connection.outcome ?? 'done')
  }

  #error(outcome: Parameters<typeof outcomeError>[2]): Error {
    return outcomeError(undefined, this.#subject, outcome)
  }
}
