import type { Duplex } from 'node:stream'
import { checkObject, checkSignal, integer, wrongType } from '@upcall/foundation/check'
import { errnoOf } from '@upcall/foundation/error'
import type { Message, MessageSocket, ReceiveOptions, SendOptions } from '@upcall/foundation/message-socket'
import { Queue } from '@upcall/foundation/queue'
import { keepReadable } from '@upcall/foundation/streams'
import { VsockSocket } from '../socket.js'
import { abortedError, destroyedError, type Ends, endedError, kernelError, socketError, tooLongError } from './errors.js'
import { checkMessage } from './socket.js'

const HEADER_BYTES = 4
const DEFAULT_MAX_BYTES = 0x40000

export interface FrameOptions {
  /** The longest message each way, 1 to 4294967295 bytes. A peer that announces more is reset. Default 262144, as AF_VSOCK has it. */
  maxMessageBytes?: number | undefined
}

/**
 * Messages over a stream, for a peer without `SOCK_SEQPACKET`: before each message its length, as a u32 in little-endian order. The stream
 * belongs to the result, which closes it. `MSG_EOR` is not carried.
 *
 * @throws {TypeError} for what is not a stream; {RangeError} for an option that is wrong.
 */
export function frameMessages(stream: Duplex, options: FrameOptions = {}): MessageSocket {
  if (typeof stream?.pipe !== 'function') wrongType('stream', 'a Duplex', stream)
  checkObject('options', options)
  const max = integer('maxMessageBytes', options.maxMessageBytes ?? DEFAULT_MAX_BYTES, { min: 1, max: 0xffff_ffff })
  return new FramedSocket(stream, max)
}

class FramedSocket implements MessageSocket {
  readonly maxMessageBytes: number
  readonly closed: Promise<void>
  readonly #stream: Duplex
  readonly #ends: Ends
  readonly #receivers = new Queue<undefined, Message | undefined>()
  readonly #outgoing = new Queue<Uint8Array, void>()
  /** Of the message whose header has come. */
  #length: number | undefined
  #writing = false
  #received = false
  #ending = false
  /** What it was destroyed with. */
  #reason: Error | undefined

  constructor(stream: Duplex, max: number) {
    this.maxMessageBytes = max
    this.#stream = stream
    this.#ends = stream instanceof VsockSocket ? { local: stream.local, remote: stream.remote } : {}
    stream.allowHalfOpen = true
    keepReadable(stream, (error) => this.#outgoing.settleAll(({ reject }) => reject(this.#lost('send', error))))
    stream.on('error', () => {}).on('readable', () => this.#take())
    stream.on('end', () => this.#take())
    this.closed = new Promise((resolve) => {
      const over = () => {
        this.#over()
        resolve()
      }
      if (stream.closed) over()
      else stream.once('close', over)
    })
  }

  get errored(): Error | null {
    return this.#stream.errored ?? null
  }

  async send(data: Uint8Array, options: SendOptions = {}): Promise<void> {
    checkObject('options', options)
    const { signal } = options
    checkMessage(data)
    checkSignal(signal)
    if (signal?.aborted) throw abortedError('send', this.#ends, signal.reason)
    if (this.#reason ?? this.#stream.errored) throw this.#reason ?? this.#lost('send')
    if (this.#ending) throw endedError(this.#ends)
    if (!this.#stream.writable) throw kernelError('send', this.#ends, 'EPIPE')
    if (data.length > this.maxMessageBytes) throw tooLongError(this.#ends, data.length, this.maxMessageBytes)
    const sent = this.#outgoing.add(data, signal, (reason) => abortedError('send', this.#ends, reason))
    this.#write()
    return sent
  }

  async receive(options: ReceiveOptions = {}): Promise<Message | undefined> {
    checkObject('options', options)
    const { signal } = options
    checkSignal(signal)
    if (signal?.aborted) throw abortedError('receive', this.#ends, signal.reason)
    if (this.#reason ?? this.#stream.errored) throw this.#reason ?? this.#lost('receive')
    if (this.#received || this.#stream.destroyed) return undefined
    const received = this.#receivers.add(undefined, signal, (reason) => abortedError('receive', this.#ends, reason))
    this.#take()
    return received
  }

  end(): void {
    this.#ending = true
    this.#write()
  }

  destroy(error?: Error): void {
    this.#reason ??= error ?? destroyedError('close', this.#ends)
    this.#stream.destroy(error)
    this.#over()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, undefined> {
    for (let message = await this.receive(); message !== undefined; message = await this.receive()) yield message.data
  }

  /** One message at a time, so that those that wait can be given up. */
  #write(): void {
    const data = this.#outgoing.first
    if (this.#writing || this.#stream.destroyed) return
    if (data === undefined) {
      if (this.#ending) this.#stream.end()
      return
    }
    this.#writing = true
    const header = Buffer.alloc(HEADER_BYTES)
    header.writeUInt32LE(data.length)
    this.#stream.cork()
    this.#stream.write(header)
    this.#stream.write(data, (error) => {
      this.#writing = false
      // Its caller may have given it up.
      if (this.#outgoing.first === data) error ? this.#outgoing.failFirst(this.#lost('send', error)) : this.#outgoing.shift()
      this.#write()
    })
    this.#stream.uncork()
  }

  #take(): void {
    while (this.#receivers.size > 0 && !this.#stream.destroyed) {
      const data = this.#next()
      if (data === undefined) break
      this.#length = undefined
      this.#receivers.shift({ data, eor: false, sentBytes: data.length })
    }
    if (!this.#stream.readableEnded) return
    if (this.#length !== undefined) return void this.destroy(this.#cut('the peer ended in the middle of a message'))
    this.#received = true
    this.#receivers.settleAll(({ resolve }) => resolve(undefined))
  }

  /** The bytes of the next message, once all are there. */
  #next(): Uint8Array | undefined {
    if (this.#length === undefined) {
      const header: Buffer | null = this.#stream.read(HEADER_BYTES)
      if (header === null) return undefined
      this.#length = header.length < HEADER_BYTES ? -1 : header.readUInt32LE()
      if (this.#length > this.maxMessageBytes) {
        this.destroy(this.#cut(`the peer announced a message of ${this.#length} bytes`))
        return undefined
      }
    }
    if (this.#length === 0) return new Uint8Array(0)
    if (this.#length < 0) return undefined
    const data: Buffer | null = this.#stream.read(this.#length)
    // At the end the stream gives what is left.
    return data === null || data.length < this.#length ? undefined : data
  }

  #over(): void {
    const { errored } = this.#stream
    const error = this.#reason ?? (errored ? this.#lost('receive', errored) : undefined)
    this.#receivers.settleAll(({ resolve, reject }) => (error ? reject(error) : resolve(undefined)))
    this.#outgoing.settleAll(({ reject }) => reject(error ?? kernelError('send', this.#ends, 'EPIPE')))
  }

  #cut(what: string): Error {
    return socketError('receive', this.#ends, { code: 'EPROTO', what, next: 'Does it frame its messages the same way?' })
  }

  #lost(op: 'send' | 'receive', cause: unknown = this.#stream.errored): Error {
    return kernelError(op, this.#ends, errnoOf(cause), cause)
  }
}
