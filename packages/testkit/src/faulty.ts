import { Duplex } from 'node:stream'
import { checkDuplex } from './duplex.js'
import { checkPlan, type FaultPlan, Faults } from './fault-plan.js'
import { socketError } from './socket-error.js'

export type Direction = 'read' | 'write'

/** A fault that took effect: the `'fault'` event of a {@link FaultStream}. */
export interface FaultEvent {
  direction: Direction
  fault: 'insert' | 'stall' | 'eof' | 'reset'
  /** How many bytes of that direction went through before the fault. */
  at: number
}

/**
 * Puts the faults of `plan` between `stream` and the holder of the result.
 *
 * @throws TypeError or RangeError that names the wrong argument, or the wrong part of the plan.
 */
export function faulty(stream: Duplex, plan: FaultPlan): FaultStream {
  return new FaultStream(stream, plan)
}

/**
 * A Duplex over another one, which injects faults. It owns the inner stream: destroying it destroys the inner one.
 *
 * Pieces arrive as separate chunks at an end that is in memory. A socket may join them again.
 *
 * Events: those of a Duplex, and `'fault'` with a {@link FaultEvent}.
 */
export class FaultStream extends Duplex {
  readonly #inner: Duplex
  readonly #faults: Record<Direction, Faults>
  /** The directions that ended by a fault. Later bytes in them are lost. */
  readonly #ended = new Set<Direction>()
  readonly #stalled = new Map<Direction, () => void>()
  #onRead: (() => void) | undefined
  /** The work under way in each direction. The next chunk waits for it. */
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
      // An end that came before the close is on its way through #reading. A close without an end cuts the stream off.
      if (!inner.readableEnded) this.destroy()
    })
    // Faults at offset 0 do not wait for a byte.
    this.#reading = this.#run('read', new Uint8Array(0))
    this.#writing = this.#run('write', new Uint8Array(0))
    this.#writing.catch((error: Error) => this.destroy(error))
  }

  /** How many bytes of the inner stream have reached the holder. */
  get bytesRead(): number {
    return this.#faults.read.passed
  }

  /** How many bytes of the holder have reached the inner stream. */
  get bytesWritten(): number {
    return this.#faults.write.passed
  }

  /** The directions that are stalled until {@link release}. */
  get stalled(): readonly Direction[] {
    return [...this.#stalled.keys()]
  }

  /** Lets a stalled direction continue; both directions without an argument. */
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
