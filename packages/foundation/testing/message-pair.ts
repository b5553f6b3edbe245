import type { Message, MessageSocket, ReceiveOptions, SendOptions } from '../src/message-socket.js'

interface Sent {
  readonly message: Message
  readonly taken: (error?: Error) => void
}

const coded = (code: string) => Object.assign(new Error(code), { code })

/** One end of a pair of message sockets in memory. A send resolves when the other end receives. */
export class PairedSocket implements MessageSocket {
  other!: PairedSocket
  errored: Error | null = null
  maxMessageBytes = Number.POSITIVE_INFINITY
  /** Why it takes no more from the other end. */
  refuses: Error | undefined
  #incoming: Sent[] = []
  #waiting: ((value: undefined) => void)[] = []
  #ended = false
  #isClosed = false
  #close: () => void = () => {}
  readonly closed = new Promise<void>((resolve) => {
    this.#close = resolve
  })

  async send(data: Uint8Array, { eor = false }: SendOptions = {}): Promise<void> {
    if (data.length > this.maxMessageBytes) throw coded('EMSGSIZE')
    if (this.#isClosed || this.#ended || this.other.#isClosed) throw coded('EPIPE')
    if (this.other.refuses !== undefined) throw this.other.refuses
    await new Promise<void>((resolve, reject) => {
      const taken = (error?: Error) => (error === undefined ? resolve() : reject(error))
      this.other.arrive({ message: { data, eor, sentBytes: data.length }, taken })
    })
  }

  /** A message, whatever the other end has sent: its `sentBytes` may be more than its bytes. */
  arrive(sent: Sent): void {
    this.#incoming.push(sent)
    this.#wake()
  }

  async receive(_options?: ReceiveOptions): Promise<Message | undefined> {
    for (;;) {
      const sent = this.#incoming.shift()
      if (sent !== undefined) {
        sent.taken()
        return sent.message
      }
      if (this.errored !== null) throw this.errored
      if (this.other.#ended) return undefined
      if (this.#isClosed) throw coded('ABORTED')
      if (this.other.#isClosed) throw coded('ECONNRESET')
      await new Promise<undefined>((resolve) => this.#waiting.push(resolve))
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (let message = await this.receive(); message !== undefined; message = await this.receive()) yield message.data
  }

  end(): void {
    this.#ended = true
    this.other.#wake()
    this.#conclude()
    this.other.#conclude()
  }

  destroy(error?: Error): void {
    if (this.#isClosed) return
    this.errored = error ?? null
    this.#isClosed = true
    if (error === undefined) this.#ended = true
    for (const { taken } of this.#incoming.splice(0)) taken(coded('EPIPE'))
    this.#close()
    this.#wake()
    this.other.#wake()
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake(undefined)
  }

  #conclude(): void {
    if (!this.#ended || !this.other.#ended || this.#incoming.length > 0) return
    this.#isClosed = true
    this.#close()
  }
}

export function messagePair(): [PairedSocket, PairedSocket] {
  const [a, b] = [new PairedSocket(), new PairedSocket()]
  a.other = b
  b.other = a
  return [a, b]
}
