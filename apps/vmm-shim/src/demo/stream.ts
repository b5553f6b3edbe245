import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'

const CHUNK = 64 * 1024
/** The pause between chunks: it leaves an emulated guest time for other work. */
const PAUSE_MS = 20

export interface Flow {
  readonly sent: number
  readonly received: number
}

/** Sends random bytes to an echo service until it is told to stop, with a checksum over each direction. */
export class ChecksummedStream {
  readonly #stream: Duplex
  readonly #out = createHash('sha256')
  readonly #back = createHash('sha256')
  readonly #flowing: Promise<void>
  readonly #ended: Promise<void>
  #sent = 0
  #received = 0
  #stopped = false

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('data', (chunk: Buffer) => {
      this.#received += chunk.length
      this.#back.update(chunk)
    })
    this.#ended = once(stream, 'end').then(() => {})
    this.#flowing = this.#flow()
    this.#ended.catch(() => {})
    this.#flowing.catch(() => {})
  }

  get flow(): Flow {
    return { sent: this.#sent, received: this.#received }
  }

  /** Resolves when more than `than` bytes are back. @throws if the stream broke, or was stopped. */
  async receivedMore(than: number): Promise<void> {
    const stopped = this.#flowing.then(() => {
      throw new Error('stream: it was stopped')
    })
    stopped.catch(() => {})
    while (this.#received <= than) await Promise.race([once(this.#stream, 'data'), stopped])
  }

  /** Resolves when all bytes are back. @throws if they differ, or if the stream broke. */
  async finish(): Promise<{ bytes: number; sha256: string }> {
    this.#stopped = true
    await this.#flowing
    this.#stream.end()
    await this.#ended
    const [out, back] = [this.#out.digest('hex'), this.#back.digest('hex')]
    if (out !== back)
      throw new Error(`stream: ${this.#sent} bytes went out with ${out}, ${this.#received} came back with ${back}`)
    return { bytes: this.#received, sha256: out }
  }

  destroy(): void {
    this.#stopped = true
    this.#stream.destroy()
  }

  async #flow(): Promise<void> {
    while (!this.#stopped) {
      const chunk = randomBytes(CHUNK)
      this.#out.update(chunk)
      this.#sent += chunk.length
      if (!this.#stream.write(chunk)) await once(this.#stream, 'drain')
      await delay(PAUSE_MS)
    }
  }
}
