import { EventEmitter } from 'node:events'
import { onAbort } from '@upcall/foundation/abort'
import { checkObject, checkSignal, duration } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { Driver } from '@upcall/foundation/driver'
import { textOf } from '@upcall/foundation/error'
import { traceOf } from '@upcall/foundation/trace'
import { bounded } from '@upcall/foundation/wait'
import type { CheckedService, Prepared } from './checked-service.js'
import { Connections } from './connections.js'
import { errorOf, type UpcallError, type UpcallErrorFields } from './error.js'
import type { Effect, OutsideEvent, ReconnectReason } from './machine/event.js'
import { SessionMachine } from './machine/session-machine.js'
import type { Kind, StateName } from './machine/state.js'
import { type ClientOptions, resolveOptions } from './options.js'

/** How long a caller waits. */
export interface WaitOptions {
  /** Ends the wait. It rejects with code `ABORTED` and the signal's reason as `cause`. */
  signal?: AbortSignal | undefined
  /** Milliseconds from the call, over queue, dial and reply. Default: no limit of its own; the reconnect budget and the reply's deadline remain. */
  timeoutMs?: number | undefined
}

/** The session is in another state. `cause`: why it left a connection or gave up. */
export interface StateEvent {
  readonly state: StateName
  readonly previous: StateName
  readonly cause?: unknown
}

/** The session will try another connection. `attempt` counts from 1 since the last connection that worked; 0: a connection off budget. */
export interface ReconnectEvent {
  readonly attempt: number
  readonly delayMs: number
  readonly reason: ReconnectReason
  readonly cause?: unknown
}

interface Waiter {
  resolve(value: unknown): void
  reject(error: unknown): void
}

interface RequestWaiter extends Waiter {
  /** Stops listening to the caller's signal. */
  release(): void
}

/**
 * What the diagnostics channel `upcall:client` carries, in the order in which it happens. `client` and `remote` tell the sessions of a
 * process apart. Each message has one of:
 *
 * - `event`: something happened to the session. `bytes` has a chunk of what the guest sent; `request` has the ticket of a new request.
 * - `effect`: the session did something about it. `write` has what goes to the guest; `reply` and `fail` end the request with that `id`.
 * - `kind`: the session's state in its table (docs/machines.md), finer than {@link StateEvent}.
 * - `error`: the request was refused before it could be queued.
 *
 * The values are the session's own: a subscriber must not change them, and copies bytes that it keeps.
 */
export type ClientTrace = { readonly client: UpcallClient<unknown, unknown>; readonly remote: string } & (
  | { readonly event: OutsideEvent }
  | { readonly effect: Effect }
  | { readonly kind: Kind; readonly previous: Kind }
  | { readonly error: unknown }
)

const trace = traceOf('client')

/**
 * A session with one service in the guest. It starts to connect when it is made, reconnects when it has to, and owns the streams that
 * its dialer delivers. It sends one request at a time, in the order of the calls.
 *
 * What happens to it and what it does is published on the diagnostics channel `upcall:client` as {@link ClientTrace}, and printed under
 * `NODE_DEBUG=upcall-client`.
 */
export class UpcallClient<Req, Rep>
  extends EventEmitter<{ state: [StateEvent]; reconnect: [ReconnectEvent] }>
  implements AsyncDisposable
{
  readonly #service: CheckedService
  readonly #clock: Clock
  readonly #remote: string
  readonly #closeTimeoutMs: number
  readonly #machine: SessionMachine
  readonly #driver: Driver<OutsideEvent, Effect>
  readonly #connections: Connections
  readonly #requests = new Map<number, RequestWaiter>()
  readonly #readiness = new Set<Waiter>()
  #requestCount = 0
  /** As last published. */
  #kind: Kind = 'Due'
  #closed: Promise<void> | undefined

  /** @throws TypeError or RangeError that names the wrong option. */
  constructor(options: ClientOptions<Req, Rep>) {
    super()
    const { dial, clock, service, session } = resolveOptions(options)
    this.#service = service
    this.#clock = clock
    this.#remote = session.remote
    this.#closeTimeoutMs = session.dialMs
    this.#machine = new SessionMachine(session, clock.now())
    this.#driver = new Driver({ machine: this.#machine, clock, perform: (effect) => this.#perform(effect) })
    this.#connections = new Connections(dial, (event) => this.#tell(event))
    // Not before the caller has had a chance to listen.
    queueMicrotask(() => this.#tell({ type: 'wake' }))
  }

  get state(): StateName {
    return this.#machine.state
  }

  /**
   * Resolves when the service has greeted; at once if it has already.
   *
   * @throws {@link UpcallError} (all `not-sent`) `UNREACHABLE` when the client has given up, `TIMEOUT`, `ABORTED`, `CLOSED`.
   */
  async ready(options: WaitOptions = {}): Promise<void> {
    const { signal, timeoutMs } = checkWait(options)
    const next = 'The client goes on trying.'
    const late = () => {
      const { cause } = this.#machine
      const last = cause === undefined ? '' : `, last attempt: ${textOf(cause)}`
      return this.#notReady({ code: 'TIMEOUT', what: `not ready within ${timeoutMs} ms${last}`, next, cause })
    }
    const aborted = (cause: unknown) =>
      this.#notReady({ code: 'ABORTED', what: 'aborted before the session was ready', next, cause })
    return bounded<unknown>({ timeoutMs, signal, clock: this.#clock, late, aborted }, (resolve, reject) => {
      const waiter = { resolve, reject }
      this.#readiness.add(waiter)
      this.#settleReadiness()
      return () => this.#readiness.delete(waiter)
    }).then(() => {})
  }

  /**
   * Sends one request when its turn comes.
   *
   * @returns The reply, whether the guest did what was asked or refused it.
   * @throws What the service's `encode` throws, for an invalid request; TypeError or RangeError for wrong options; {@link UpcallError} for everything else, with an honest `outcome`.
   */
  request(value: Req, options: WaitOptions = {}): Promise<Rep> {
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs } = checkWait(options)
      const id = ++this.#requestCount
      const ticket = { id, ...this.#prepare(value), deadline: this.#clock.now() + timeoutMs }
      if (signal?.aborted) {
        const [what, next] = ['aborted before the call', 'Nothing was sent.']
        const about = { op: ticket.op, subject: this.#remote, cause: signal.reason }
        throw errorOf({ code: 'ABORTED', outcome: 'not-sent', ...about, what, next })
      }
      const release = onAbort(signal, (reason) => this.#tell({ type: 'abort', id, reason }))
      this.#requests.set(id, { resolve: resolve as (value: unknown) => void, reject, release })
      this.#tell({ type: 'request', ticket })
    })
  }

  /** What is wrong with a request, or with the service, is traced for a person who debugs it, and thrown for the caller. */
  #prepare(value: Req): Prepared {
    try {
      return this.#service.prepare(value, this.#remote)
    } catch (error) {
      trace({ client: this, remote: this.#remote, error }, '%s: request refused, nothing was sent: %o', this.#remote, error)
      throw error
    }
  }

  /** Starts again after the client gave up (`ReconnectError`), or tries at once while it waits between two attempts. Otherwise does nothing. */
  reconnect(): void {
    this.#tell({ type: 'reconnect' })
  }

  /**
   * Ends the session: a request under way rejects as `indeterminate`, those that wait as `not-sent`. Idempotent.
   *
   * @returns When the stream has closed.
   */
  close(): Promise<void> {
    if (this.#closed === undefined) {
      this.#tell({ type: 'close' })
      this.#closed = this.#connections.allGone(this.#clock, this.#closeTimeoutMs)
    }
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** true: ready. An error: it will not be without reconnect(). undefined: not yet. */
  #readyNow(): true | UpcallError | undefined {
    const { state, failure } = this.#machine
    if (state === 'ServiceConnected' || state === 'ServiceBusy') return true
    if (failure !== undefined) return this.#notReady({ code: 'UNREACHABLE', ...failure, next: 'Call reconnect() to try again.' })
    if (state === 'Closed') return this.#notReady({ code: 'CLOSED', what: 'the client is closed', next: 'Make a new one.' })
    return undefined
  }

  #notReady(fields: Pick<UpcallErrorFields, 'code' | 'what' | 'next' | 'cause'>): UpcallError {
    return errorOf({ op: 'connect', subject: this.#remote, outcome: 'not-sent', ...fields })
  }

  #tell(event: OutsideEvent): void {
    trace({ client: this, remote: this.#remote, event }, '%s: %s', this.#remote, event.type)
    this.#driver.tell(event)
  }

  #perform(effect: Effect): void {
    trace({ client: this, remote: this.#remote, effect }, '%s: %o', this.#remote, effect)
    this.#traceKind()
    switch (effect.type) {
      case 'dial':
        this.#connections.dial(effect.conn)
        break
      case 'write':
        this.#connections.write(effect.conn, effect.bytes)
        break
      case 'drop':
        this.#connections.drop(effect.conn)
        break
      case 'reply':
        this.#settle(effect.id)?.resolve(effect.reply)
        break
      case 'fail':
        this.#settle(effect.id)?.reject(effect.error)
        break
      case 'state': {
        const { state, previous, cause } = effect
        this.#settleReadiness()
        this.#emit('state', { state, previous, ...(cause !== undefined && { cause }) })
        break
      }
      case 'reconnect': {
        const { attempt, delayMs, reason, cause } = effect
        this.#emit('reconnect', { attempt, delayMs, reason, ...(cause !== undefined && { cause }) })
        break
      }
    }
  }

  /** Each change of state has an effect, so that none is missed. */
  #traceKind(): void {
    const { kind } = this.#machine
    const previous = this.#kind
    if (kind === previous) return
    this.#kind = kind
    trace({ client: this, remote: this.#remote, kind, previous }, '%s: %s, was %s', this.#remote, kind, previous)
  }

  #settle(id: number): RequestWaiter | undefined {
    const waiter = this.#requests.get(id)
    this.#requests.delete(id)
    waiter?.release()
    return waiter
  }

  #settleReadiness(): void {
    const settled = this.#readyNow()
    if (settled === undefined) return
    for (const waiter of this.#readiness) {
      this.#readiness.delete(waiter)
      if (settled === true) waiter.resolve(undefined)
      else waiter.reject(settled)
    }
  }

  /** A listener that throws is a bug of the program and surfaces as such, but not in the middle of the client's work. */
  #emit(name: 'state', event: StateEvent): void
  #emit(name: 'reconnect', event: ReconnectEvent): void
  #emit(name: 'state' | 'reconnect', event: StateEvent | ReconnectEvent): void {
    try {
      this.emit(name as 'state', event as StateEvent)
    } catch (error) {
      process.nextTick(() => {
        throw error
      })
    }
  }
}

function checkWait(options: WaitOptions): { signal: AbortSignal | undefined; timeoutMs: number } {
  checkObject('options', options)
  const { signal } = options
  checkSignal(signal)
  return { signal, timeoutMs: duration('timeoutMs', options.timeoutMs, Number.POSITIVE_INFINITY) }
}
