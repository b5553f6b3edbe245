import type { Duplex } from 'node:stream'
import { integer } from '@upcall/foundation/check'
import { textOf } from '@upcall/foundation/error'
import { type Arch, decodeRequest, encodeConnect, encodeReply, MESSAGE_SIZE, type Reply, type Request } from '@upcall/wire'
import { ByteQueue } from './byte-queue.js'
import { checkDuplex } from './duplex.js'
import { socketError } from './socket-error.js'

/** The client left while a script waited for it. A script that rejects with this error has not failed. */
export class ClientGone extends Error {
  override readonly name = 'ClientGone'
}

/** One connection to a fake guest, as its script sees it. */
export class FakeConnection {
  /** Counts the guest's connections, from 1. */
  readonly number: number
  readonly arch: Arch
  /** The guest's end, for what the methods below do not offer. */
  readonly stream: Duplex
  /** The lengths of the chunks that arrived, in order: on an in-memory stream one for each write. */
  readonly chunks: number[] = []
  /** Resolves when the client has ended its direction, or the connection is gone. */
  readonly ended: Promise<void>
  readonly #unread = new ByteQueue()
  #over = false
  #wake: () => void = () => {}

  constructor(stream: Duplex, number: number, arch: Arch) {
    checkDuplex('FakeConnection: stream', stream)
    this.stream = stream
    this.number = number
    this.arch = arch
    stream.on('data', (chunk: Buffer) => {
      this.chunks.push(chunk.length)
      this.#unread.push(chunk)
      this.#wake()
    })
    this.ended = new Promise((resolve) => {
      const over = () => {
        this.#over = true
        this.#wake()
        resolve()
      }
      stream.once('end', over).once('close', over)
    })
    // A reset by the client is an outcome, not a failure. The next read or write rejects with it.
    stream.on('error', () => {})
  }

  /** How many bytes have arrived so far, read or not. */
  get received(): number {
    return this.chunks.reduce((sum, length) => sum + length, 0)
  }

  /** The next `length` bytes. Rejects with {@link ClientGone} if the client has left before them. */
  async read(length: number): Promise<Uint8Array> {
    integer('length', length)
    while (this.#unread.length < length) {
      if (this.#over) throw new ClientGone(`the client left after ${this.#unread.length} of ${length} bytes`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#unread.take(length)
  }

  /** The byte that chooses the service. */
  async readService(): Promise<number> {
    return (await this.read(1))[0]!
  }

  /** The next 1024 bytes. */
  readMessage(): Promise<Uint8Array> {
    return this.read(MESSAGE_SIZE)
  }

  /** The next message, as the device manager's request. */
  async readRequest(): Promise<Request> {
    return decodeRequest(await this.readMessage(), this.arch)
  }

  /** Sends bytes and resolves when they have left. */
  async write(bytes: Uint8Array): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.stream.write(bytes, (error) => (error ? reject(new ClientGone(textOf(error), { cause: error })) : resolve()))
    })
  }

  /** Sends the Connect message. */
  greet(): Promise<void> {
    return this.write(encodeConnect())
  }

  /** Reads the service byte and greets, as every conversation begins. */
  async handshake(): Promise<void> {
    await this.readService()
    await this.greet()
  }

  /** Sends a reply. */
  async reply(reply: Reply): Promise<void> {
    return this.write(encodeReply(reply, this.arch))
  }

  /** Ends this direction: EOF at the client. */
  end(): void {
    this.stream.end()
  }

  /** Closes the connection: EOF at the client, or a reset if bytes of the client are unread. */
  close(): void {
    this.stream.destroy()
  }

  /** Resets the connection: ECONNRESET at the client. */
  reset(): void {
    this.stream.destroy(socketError('ECONNRESET', 'read'))
  }

  /** Sends nothing more. Resolves when the client has left. */
  async silence(): Promise<void> {
    if (!this.stream.closed) await new Promise((resolve) => this.stream.once('close', resolve))
  }
}
