import { ok } from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import type { ComplianceConnectOptions, ComplianceListener, ComplianceTransport } from './transport.js'

/** One test of the suite. */
export type Test<A> = [name: string, run: (scope: Scope<A>) => Promise<void>]

/** The resources of one test: `close()` closes everything that was opened through it. */
export class Scope<A> {
  readonly transport: ComplianceTransport<A>
  readonly signal: AbortSignal
  readonly #closers: (() => unknown)[] = []
  readonly #late: Promise<never>

  constructor(transport: ComplianceTransport<A>, signal: AbortSignal) {
    this.transport = transport
    this.signal = signal
    this.#late = new Promise((_resolve, reject) => {
      const onAbort = () => reject(signal.reason)
      if (signal.aborted) return onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      this.defer(() => signal.removeEventListener('abort', onAbort))
    })
    // A test that waits for something sees it.
    this.#late.catch(() => {})
  }

  /** `promise`, unless the test's time is up first. */
  until<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#late])
  }

  defer(close: () => unknown): void {
    this.#closers.push(close)
  }

  /** Owns a stream. Errors that a test does not look at are not a failure. */
  own(stream: Duplex): Duplex {
    stream.on('error', () => {})
    this.defer(() => stream.destroy())
    return stream
  }

  async listen(address?: A): Promise<ScopedListener<A>> {
    const listener = await this.until(this.transport.listen({ address }))
    this.defer(() => listener.close())
    return new ScopedListener(this, listener)
  }

  async connect(address: A, options: ComplianceConnectOptions = {}): Promise<Duplex> {
    return this.own(await this.until(this.transport.connect(address, options)))
  }

  async vacant(): Promise<A> {
    const { address, close } = await this.until(this.transport.vacant())
    this.defer(close)
    return address
  }

  async mute(): Promise<{ address: A; reached: Promise<void> }> {
    ok(this.transport.mute, 'the transport offers mute()')
    const { address, reached, close } = await this.until(this.transport.mute())
    this.defer(close)
    return { address, reached: this.until(reached) }
  }

  /** Two ends of one connection. */
  async pair(): Promise<{ near: Duplex; far: Duplex; listener: ScopedListener<A> }> {
    const listener = await this.listen()
    const accepting = listener.accept()
    const near = await this.connect(listener.address)
    return { near, far: await accepting, listener }
  }

  async close(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close()
  }
}

/** A listener whose connections the test's scope owns. */
export class ScopedListener<A> {
  readonly #scope: Scope<A>
  readonly #listener: ComplianceListener<A>
  readonly #connections: AsyncIterator<Duplex>

  constructor(scope: Scope<A>, listener: ComplianceListener<A>) {
    this.#scope = scope
    this.#listener = listener
    this.#connections = listener[Symbol.asyncIterator]()
  }

  get address(): A {
    return this.#listener.address
  }

  /** The next connection. */
  async accept(): Promise<Duplex> {
    const next = await this.next()
    ok(!next.done, 'the listener ended instead of accepting')
    return next.value
  }

  /** The next step of the iteration. */
  async next(): Promise<IteratorResult<Duplex, undefined>> {
    const next = await this.#scope.until(this.#connections.next())
    if (next.done) return { done: true, value: undefined }
    return { done: false, value: this.#scope.own(next.value) }
  }

  /** Accepts until the listener is closed and passes each connection to `serve`. */
  serve(serve: (stream: Duplex) => void): void {
    const loop = async () => {
      for (let next = await this.next(); !next.done; next = await this.next()) serve(next.value)
    }
    // A test that waits for a connection without a server runs into its own deadline.
    loop().catch(() => {})
  }

  close(): Promise<void> {
    return this.#scope.until(this.#listener.close())
  }
}
