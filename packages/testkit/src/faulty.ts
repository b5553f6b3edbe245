import { Duplex } from 'node:stream'
import { checkDuplex } from './check.js'
import { checkPlan, type FaultPlan, Faults } from './fault-plan.js'
import { socketError } from './socket-error.js'

export type Direction = 'read' | 'write'

/** A fault that took effect: the `'fault'` event of a {@link FaultStream}. */
export interface FaultEvent {
  direction: Direction
  fault: 'insert' | 'stall' | 'eof' | 'reset'
  /** Bytes of that direction that went through before it. */
  at: number
}

/**
 * `stream` with the faults of `plan` between it and whoever holds the result.
 *
 * @throws TypeError or RangeError for a stream that is none, or a plan that is wrong; it names the part.
 */
export function faulty(stream: Duplex, plan: FaultPlan): FaultStream {
  return new FaultStream(stream, plan)
}

/**
 * A Duplex over another one, which injects faults. It owns the inner stream and destroys it with itself.
 *
 * Pieces are pieces of their own at the other end if that is in memory; a socket may put them together again.
 *
 * Events: those of a Duplex, and `'fault'` with a {@link FaultEvent}.
 */
export class FaultStream extends Duplex {
  readonly #inner: Duplex
  readonly #faults: Record<Direction, Faults>
  /** The directions that ended by a fault: what follows in them is lost. */
  readonly #ended = new Set<Direction>()
  readonly #stalled = new Map<Direction, () => void>()
  #onRead: (() => void) | undefined
  /** What is under way in each direction; the next thing comes behind it. */
  #reading: Promise<void>
  #writing: Promise<void>

  constructor(inner: Duplex, plan: FaultPlan) {
    checkDuplex('faulty: stream', inner)
    checkPlan(plan)
    super({ allowHalfOpen: inner.allowHalfOpen })
    this.#inner = inner
    this.#faults = { read: new Faults(plan.read), write: new Faults(plan.write) }
    inner.on('data', (chunk: Buffer) => {
      inner.pause()
      this.#reading = this.#reading.then(() => this.#run('read', chunk)).then(() => void inner.resume())
    })
    inner.once('end', () => {
      this.#reading = this.#reading.then(() => this.#eof('read'))
    })
    inner.on('error', (error) => this.destroy(error))
    inner.once('close', () => {
      // An end that came before the close is on its way through #reading; anything else cuts the stream off.
      if (!inner.readableEnded) this.destroy()
    })
    // Faults at offset 0 wait for no byte.
    this.#reading = this.#run('read', new Uint8Array(0))
    this.#writing = this.#run('write', new Uint8Array(0))
    this.#writing.catch((error: Error) => this.destroy(error))
  }

  /** Bytes of the inner stream that reached the holder. */
  get bytesRead(): number {
    return this.#faults.read.passed
  }

  /** Bytes of the holder that reached the inner stream. */
  get bytesWritten(): number {
    return this.#faults.write.passed
  }

  /** The directions that stand still until {@link release}. */
  get stalled(): readonly Direction[] {
    return [...this.#stalled.keys()]
  }

  /** Lets a stalled direction go on; both without an argument. */
  release(direction?: Direction): void {
    for (const each of direction === undefined ? this.stalled : [direction]) {
      const resume = this.#stalled.get(each)
      this.#stalled.delete(each)
      resume?.()
    }
  }

  override _read(): void {
    const resume = this.#onRead
    this.#onRead = undefined
    resume?.()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#writing = this.#writing.then(() => this.#run('write', chunk))
    this.#writing.then(() => done(), done)
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#writing = this.#writing.then(() => this.#eof('write'))
    this.#writing.then(() => done(), done)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#inner.destroy(error ?? undefined)
    done(error)
  }

  async #run(direction: Direction, bytes: Uint8Array): Promise<void> {
    if (this.#ended.has(direction)) return
    for (const step of this.#faults[direction].steps(bytes)) {
      if (this.destroyed) return
      if (step.do !== 'deliver') {
        this.emit('fault', { direction, fault: step.do, at: step.at } satisfies FaultEvent)
      }
      switch (step.do) {
        case 'deliver':
        case 'insert':
          await this.#deliver(direction, step.bytes)
          break
        case 'stall':
          await new Promise<void>((resume) => this.#stalled.set(direction, resume))
          break
        case 'eof':
          this.#eof(direction)
          return
        case 'reset':
          this.destroy(socketError('ECONNRESET', direction))
          break
      }
    }
  }

  async #deliver(direction: Direction, bytes: Uint8Array): Promise<void> {
    if (direction === 'read') {
      if (!this.push(Buffer.from(bytes))) await new Promise<void>((resume) => (this.#onRead = resume))
    } else {
      await new Promise<void>((resolve, reject) => {
        this.#inner.write(bytes, (error) => (error ? reject(error) : resolve()))
      })
    }
  }

  #eof(direction: Direction): void {
    if (this.#ended.has(direction) || this.destroyed) return
    this.#ended.add(direction)
    if (direction === 'read') this.push(null)
    else this.#inner.end()
  }
}
