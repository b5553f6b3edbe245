import { getSystemErrorName } from 'node:util'
import { checkObject, checkSignal, checkSwitch, wrongType, wrongValue } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { errnoOf } from '@upcall/foundation/error'
import type { Message, MessageSocket, ReceiveOptions, SendOptions } from '@upcall/foundation/message-socket'
import { Queue } from '@upcall/foundation/queue'
import type { Address } from '../address.js'
import { Life } from '../life.js'
import type { Binding, Descriptor } from '../native/binding.js'
import { abortedError, cutError, destroyedError, endedError, kernelError, tooLongError } from './errors.js'
import { type Limits, limitsOf } from './limits.js'

/** @internal What a socket is made of. It owns the descriptor. */
export interface SeqpacketInit {
  readonly binding: Binding
  readonly descriptor: Descriptor
  readonly local?: Address | undefined
  readonly remote?: Address | undefined
  readonly maxReceiveBytes?: number | undefined
  readonly clock?: Clock | undefined
}

/** Messages that are sent and received in one go before other work gets its turn. */
const BATCH = 64
/** The pauses between two looks at a peer that has ended its direction: each is twice as long as the last. */
const FIRST_PAUSE_MS = 50
const LONGEST_PAUSE_MS = 500

interface Outgoing {
  readonly data: Uint8Array
  readonly eor: boolean
}

/**
 * A connected `SOCK_SEQPACKET` socket: whole messages, in order, both ways. Made by `connectSeqpacket` and `listenSeqpacket`.
 *
 * - `receive` reads the kernel's queue when it is called, and nothing before: a slow reader holds its peer back.
 * - An empty message is never sent. A program of another kind may send one over a Unix socket: it arrives as a message without bytes,
 *   and does not look like the end. AF_VSOCK carries none.
 * - Over AF_VSOCK each send takes a thread for as long as it waits, and a message that is first in line may go out although its signal aborts:
 *   a non-blocking send could cut messages in two there.
 * - Linux hands `MSG_EOR` on over AF_VSOCK, and drops it over Unix sockets.
 */
export class SeqpacketSocket implements MessageSocket, AsyncDisposable {
  /** This end. undefined for a Unix socket that connected. */
  readonly local: Address | undefined
  /** The other end. undefined for a Unix socket that was accepted. */
  readonly remote: Address | undefined
  /** The longest message that `send` takes, in bytes. The peer may take less. */
  readonly maxMessageBytes: number
  readonly closed: Promise<void>
  readonly #binding: Binding
  readonly #descriptor: Descriptor
  readonly #limits: Limits
  readonly #receiveLimit: number
  readonly #life: Life
  readonly #receivers = new Queue<undefined, Message | undefined>()
  readonly #outgoing = new Queue<Outgoing, void>()
  #receiving: 'open' | 'ended' = 'open'
  /** `ending`: as soon as everything has been sent. `refused`: the peer takes no more. */
  #sending: 'open' | 'ending' | 'ended' | 'refused' = 'open'
  /** What it was closed with; null: in order. */
  #over: { readonly error: Error | null } | undefined
  #errored: Error | null = null
  #events = 0
  #spent = 0
  #resting = false
  /** A thread has the first message. */
  #begun = false
  #stopLooking = () => {}
  #tellClosed = () => {}

  /** @internal */
  constructor({ binding, descriptor, local, remote, maxReceiveBytes, clock }: SeqpacketInit) {
    this.local = local
    this.remote = remote
    this.#binding = binding
    this.#descriptor = descriptor
    this.#life = new Life(clock)
    this.#limits = limitsOf(binding, descriptor, (remote ?? local)?.transport === 'vsock')
    this.maxMessageBytes = this.#limits.send
    this.#receiveLimit = Math.min(this.#limits.receive, maxReceiveBytes ?? Number.POSITIVE_INFINITY)
    this.closed = new Promise((resolve) => {
      this.#tellClosed = resolve
    })
  }

  get errored(): Error | null {
    return this.#errored
  }

  async send(data: Uint8Array, options: SendOptions = {}): Promise<void> {
    checkObject('options', options)
    const { eor = false, signal } = options
    checkMessage(data)
    checkSwitch('eor', eor)
    checkSignal(signal)
    if (signal?.aborted) throw abortedError('send', this, signal.reason)
    if (this.#over) throw this.#over.error ?? this.#refusal()
    if (this.#sending !== 'open') throw this.#refusal()
    if (data.length > this.maxMessageBytes) throw tooLongError(this, data.length, this.maxMessageBytes)
    const sent = this.#outgoing.add({ data, eor }, signal, (reason) => this.#withdrawn(abortedError('send', this, reason)))
    if (this.#outgoing.size === 1) this.#transmit()
    this.#watch()
    return sent
  }

  async receive(options: ReceiveOptions = {}): Promise<Message | undefined> {
    checkObject('options', options)
    const { signal } = options
    checkSignal(signal)
    if (signal?.aborted) throw abortedError('receive', this, signal.reason)
    if (this.#over?.error) throw this.#over.error
    if (this.#receiving === 'ended') return undefined
    const received = this.#receivers.add(undefined, signal, (reason) => this.#withdrawn(abortedError('receive', this, reason)))
    if (this.#receivers.size === 1) this.#take()
    this.#watch()
    return received
  }

  end(): void {
    if (this.#over || this.#sending !== 'open') return
    this.#sending = 'ending'
    this.#shutWhenSent()
  }

  destroy(error?: Error): void {
    this.#close(error ?? destroyedError('close', this), error ?? null)
  }

  /** Yields the bytes of each message. A message that was cut is an `EMSGSIZE`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, undefined> {
    for (;;) {
      const message = await this.receive()
      if (message === undefined) return
      if (message.sentBytes > message.data.length) throw cutError(this, message.data.length, message.sentBytes)
      yield message.data
    }
  }

  /** Keeps the process alive while a call waits, which is the default. */
  ref(): this {
    this.#life.set(true)
    this.#binding.ref(this.#descriptor)
    return this
  }

  /** Lets the process exit although a call waits. */
  unref(): this {
    this.#life.set(false)
    this.#binding.unref(this.#descriptor)
    return this
  }

  /** Closes at once, as `destroy` does. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.destroy()
    return this.closed
  }

  #refusal(): Error {
    return this.#sending === 'refused' ? kernelError('send', this, 'EPIPE') : endedError(this)
  }

  /** A call that waited is gone. */
  #withdrawn(error: Error): Error {
    this.#shutWhenSent()
    this.#watch()
    return error
  }

  /** Whether one more may be handled now. If not, all goes on after other work had its turn. */
  #mayGoOn(): boolean {
    if (this.#resting) return false
    if (this.#spent++ < BATCH) return true
    this.#resting = true
    setImmediate(() => {
      this.#resting = false
      this.#goOn()
    })
    return false
  }

  /** Waits for what the calls that wait need. */
  #watch(): void {
    if (this.#over) return
    const { READABLE, WRITABLE } = this.#binding
    const events = (this.#receivers.size > 0 ? READABLE : 0) | (this.#outgoing.size > 0 && !this.#begun ? WRITABLE : 0)
    if (events === this.#events) return
    this.#events = events
    if (events === 0) this.#binding.unwatch(this.#descriptor)
    else this.#binding.watch(this.#descriptor, events, (ready) => this.#onReady(ready))
  }

  #onReady(events: number): void {
    // An error has ended the watch; sendmsg and recvmsg tell it.
    if (events === 0) this.#events = 0
    if (!this.#resting) this.#goOn()
  }

  #goOn(): void {
    this.#spent = 0
    this.#transmit()
    this.#take()
    this.#watch()
  }

  #transmit(): void {
    for (let next = this.#outgoing.first; next && !this.#over; next = this.#outgoing.first) {
      if (this.#begun || !this.#mayGoOn()) return
      try {
        if (this.#limits.partial) return void this.#sendOnThread(next)
        if (!this.#binding.sendMessage(this.#descriptor, next.data, next.eor, undefined)) return
        this.#outgoing.shift()
      } catch (error) {
        this.#onSendError(errnoOf(error), error)
      }
    }
    this.#shutWhenSent()
  }

  /** A send that would have to wait may have begun, and nothing tells: see native/sender.h. */
  #sendOnThread(message: Outgoing): void {
    this.#binding.sendWaiting(this.#descriptor, message.data, message.eor, (errno) => {
      this.#begun = false
      if (this.#over) return
      // Its caller may have given it up: then the next one is first.
      const waited = this.#outgoing.first === message
      if (errno !== 0) this.#onSendError(getSystemErrorName(-errno), undefined, waited)
      else if (waited) this.#outgoing.shift()
      this.#goOn()
    })
    this.#begun = true
  }

  #onSendError(code: string, cause?: unknown, waited = true): void {
    // Before 6.3 Linux says ENOMEM of a message that the peer's buffer does not hold.
    const tooLong = this.#limits.partial && code === 'ENOMEM'
    const error = kernelError('send', this, tooLong ? 'EMSGSIZE' : code, cause)
    // The message is the matter, not the connection.
    if (error.code === 'EMSGSIZE' || error.retryable) waited && this.#outgoing.failFirst(error)
    else if (error.code === 'EPIPE') this.#refused(error)
    else this.#close(error, error)
  }

  #refused(error: Error): void {
    this.#sending = 'refused'
    this.#outgoing.settleAll(({ reject }) => reject(error))
    this.#closeWhenOver()
  }

  #shutWhenSent(): void {
    if (this.#over || this.#sending !== 'ending' || this.#outgoing.size > 0 || this.#begun) return
    this.#sending = 'ended'
    try {
      this.#binding.shutdown(this.#descriptor)
    } catch (error) {
      // The peer has gone already.
      if (errnoOf(error) !== 'ENOTCONN') throw error
    }
    this.#closeWhenOver()
  }

  #take(): void {
    while (this.#receivers.size > 0 && this.#receiving === 'open' && !this.#over) {
      if (!this.#mayGoOn()) return
      try {
        const message = this.#next()
        if (message === undefined) return
        if (message.end) this.#onEnd()
        else this.#receivers.shift({ data: message.bytes, eor: message.eor, sentBytes: message.length })
      } catch (cause) {
        const error = kernelError('receive', this, errnoOf(cause), cause)
        this.#close(error, error)
      }
    }
  }

  #next() {
    const length = this.#limits.tellsLength ? this.#binding.messageLength(this.#descriptor) : this.#receiveLimit
    if (length === undefined) return undefined
    return this.#binding.receiveMessage(this.#descriptor, Math.min(length, this.#receiveLimit))
  }

  #onEnd(): void {
    this.#receiving = 'ended'
    this.#receivers.settleAll(({ resolve }) => resolve(undefined))
    this.#closeWhenOver()
    if (!this.#over) this.#look(FIRST_PAUSE_MS)
  }

  /** The end of one direction and a close look the same to a reader. So the peer is looked at from time to time. */
  #look(pauseMs: number): void {
    this.#stopLooking = this.#life.setTimer(pauseMs, () => {
      if (this.#binding.hungUp(this.#descriptor)) this.#refused(kernelError('send', this, 'EPIPE'))
      else this.#look(Math.min(2 * pauseMs, LONGEST_PAUSE_MS))
    })
  }

  /** Ends the thread's wait. */
  #cut(): void {
    try {
      this.#binding.cut(this.#descriptor)
    } catch {
      // The peer has gone, which has ended it.
    }
  }

  #closeWhenOver(): void {
    if (this.#receiving === 'ended' && (this.#sending === 'ended' || this.#sending === 'refused')) this.#close(null, null)
  }

  #close(error: Error | null, errored: Error | null): void {
    if (this.#over) return
    this.#over = { error }
    this.#errored = errored
    this.#stopLooking()
    if (this.#begun) this.#cut()
    this.#binding.close(this.#descriptor)
    this.#receivers.settleAll(({ resolve, reject }) => (error ? reject(error) : resolve(undefined)))
    this.#outgoing.settleAll(({ reject }) => reject(error ?? this.#refusal()))
    this.#tellClosed()
  }
}

/** @throws {TypeError} or {RangeError} for what cannot be sent as a message. */
export function checkMessage(data: unknown): asserts data is Uint8Array {
  if (!(data instanceof Uint8Array)) wrongType('data', 'a Uint8Array', data)
  if (data.length === 0) wrongValue('data', 'a message of 1 byte or more: an empty one looks like the end', data)
}
