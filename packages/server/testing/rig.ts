import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { onTestFinished } from 'vitest'
import { UpcallServer, type UpcallServerOptions } from '../src/server.js'
import type { GuestConnection, GuestService, GuestSession, Replies } from '../src/service.js'

/** One end of a stream in memory: allowHalfOpen, backpressure, and the other end learns of a destruction. */
export class End extends Duplex {
  peer!: End
  #resume: (() => void) | undefined
  constructor() {
    super({ highWaterMark: 64 })
  }
  override _read(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.peer.push(chunk)) done()
    else this.peer.#resume = done
  }
  override _final(done: () => void): void {
    this.peer.push(null)
    done()
  }
  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.peer.destroyed) this.peer.destroy()
    done(error)
  }
}

export function pair(): [guest: End, host: End] {
  const ends = [new End(), new End()] as const
  ends[0].peer = ends[1]
  ends[1].peer = ends[0]
  return [...ends]
}

/** Lets streams in memory and promises run dry. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn()
}

/** Greets with `hi`, answers each chunk with its bytes in brackets. */
export class Echo implements GuestSession {
  readonly greeting = Buffer.from('hi')
  readonly received: string[] = []
  closed = 0
  constructor(readonly connection: GuestConnection) {}
  receive(chunk: Uint8Array): Replies | Promise<Replies> {
    const text = Buffer.from(chunk).toString()
    this.received.push(text)
    return [Buffer.from(`[${text}]`)]
  }
  close(): void {
    this.closed += 1
  }
}

/** An {@link Echo} that answers in its own way. */
export function replying(receive: (chunk: Uint8Array, connection: GuestConnection) => Replies | Promise<Replies>) {
  return (connection: GuestConnection): Echo => {
    const session = new Echo(connection)
    const note = session.receive.bind(session)
    return Object.assign(session, {
      receive(chunk: Uint8Array) {
        void note(chunk)
        return receive(chunk, connection)
      },
    })
  }
}

export function setUp(options: Partial<UpcallServerOptions> & { session?: (connection: GuestConnection) => GuestSession } = {}) {
  const { session = (connection: GuestConnection) => new Echo(connection), ...rest } = options
  const clock = new ManualClock()
  const sessions: GuestSession[] = []
  const echo: GuestService = {
    byte: 0x65,
    open(connection) {
      const opened = session(connection)
      sessions.push(opened)
      return opened
    },
  }
  const server = new UpcallServer({ services: [echo], clock, ...rest })
  const ends: string[] = []
  server.on('disconnect', (_connection, end) => ends.push(end.reason))
  onTestFinished(() => server.close())
  const connect = (remote?: string) => {
    const [guest, host] = pair()
    let received = ''
    const state = { eof: false, closed: false }
    host.on('data', (chunk) => {
      received += chunk
    })
    host.on('end', () => {
      state.eof = true
    })
    host.on('close', () => {
      state.closed = true
    })
    host.on('error', () => {})
    const connection = server.accept(guest, { remote })
    return { guest, host, connection, state, received: () => received }
  }
  /** Lets this time pass, and what it brings about happen. */
  const advance = async (ms: number) => {
    clock.advance(ms)
    await settle()
  }
  return { server, clock, advance, ends, connect, sessions: sessions as Echo[] }
}
