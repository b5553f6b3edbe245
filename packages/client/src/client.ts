import { channel } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import { debuglog } from 'node:util'
import { AbortListeners } from './abort.js'
import { checkObject, checkSignal, duration } from './check.js'
import type { CheckedService, Prepared } from './checked-service.js'
import type { Clock } from './clock.js'
import { Connections } from './connections.js'
import { ClosedError, errorOf, type UpcallError, type UpcallErrorCode } from './error.js'
import { SessionMachine } from './machine/machine.js'
import type { Effect, OutsideEvent, ReconnectReason, StateName } from './machine/session.js'
import { type ClientOptions, resolveOptions } from './options.js'

/** How long a caller is ready to wait. */
export interface WaitOptions {
  /** Ends the wait. Rejects with code `ABORTED` and the signal's reason as `cause`. */
  signal?: AbortSignal | undefined
  /** Milliseconds from the call, over queue, dial and reply. Default: no limit of its own; the reconnect budget and the reply's deadline remain. */
  timeoutMs?: number | undefined
}

/** The session went into another state. `cause`: why it left a connection or gave up. */
export interface StateEvent {
  readonly state: StateName
  readonly previous: StateName
  readonly cause?: unknown
}

/** Another connection will be tried. `attempt` counts from 1 since the last connection that worked; 0 for one that is made off budget. */
export interface ReconnectEvent {
  readonly attempt: number
  readonly delayMs: number
  readonly reason: ReconnectReason
  readonly cause?: unknown
}

interface Waiter {
  resolve(value: unknown): void
  reject(error: unknown): void
  /** Lets go of the caller's signal. */
  release(): void
}

const log = debuglog('upcall')
const diagnostics = channel('upcall:client')
// setTimeout fires at once beyond this; an early wake-up is harmless.
const LONGEST_TIMER_MS = 0x7fff_ffff

/**
 * A session with one service in the guest. It starts to connect when it is made, connects again whenever it must, and owns the streams
 * that its dialer delivers. It sends one request at a time, in the order of the calls.
 *
 * Everything it does to its connections is published, as the machine's effects, on the diagnostics channel `upcall:client`, and
 * logged under `NODE_DEBUG=upcall`.
 */
export class UpcallClient<Req, Rep>
  extends EventEmitter<{ state: [StateEvent]; reconnect: [ReconnectEvent] }>
  implements AsyncDisposable
{
  readonly #service: CheckedService
  readonly #clock: Clock
  readonly #remote: string
  readonly #closeMs: number
  readonly #machine: SessionMachine
  readonly #connections: Connections
  readonly #requests = new Map<number, Waiter>()
  readonly #readiness = new Set<Waiter>()
  readonly #aborts = new AbortListeners()
  readonly #events: OutsideEvent[] = []
  readonly #effects: Effect[] = []
  #handling = false
  #performing = false
  #requestCount = 0
  #timer: { at: number; cancel(): void } | undefined
  #closed: Promise<void> | undefined

  /** @throws TypeError or RangeError that names the option that is wrong. */
  constructor(options: ClientOptions<Req, Rep>) {
    super()
    const { dial, clock, service, session } = resolveOptions(options)
    this.#service = service
    this.#clock = clock
    this.#remote = session.remote
    this.#closeMs = Math.min(session.dialMs, LONGEST_TIMER_MS)
    this.#connections = new Connections(dial, (event) => this.#tell(event))
    this.#machine = new SessionMachine(session, clock.now())
    // Not before the caller has had a chance to listen.
    queueMicrotask(() => this.#tell({ type: 'wake' }))
  }

  get state(): StateName {
    return this.#machine.state
  }

  /**
   * Resolves once the service has greeted; at once if it has.
   *
   * @throws {@link UpcallError} (all `not-sent`) `UNREACHABLE` when the client has given up, `TIMEOUT`, `ABORTED`, `CLOSED`.
   */
  ready(options: WaitOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs } = checkWait(options)
      const error = (code: UpcallErrorCode, what: string, cause?: unknown) =>
        errorOf(code, 'not-sent', `connect ${this.#remote}: ${what}`, cause)
      if (signal?.aborted) throw error('ABORTED', 'aborted before the call', signal.reason)
      const settled = this.#readyNow()
      if (settled === true) return resolve()
      if (settled !== undefined) throw settled

      const fail = (error: UpcallError) => {
        this.#readiness.delete(waiter)
        waiter.release()
        reject(error)
      }
      const unlisten = this.#aborts.add(signal, (reason) =>
        fail(error('ABORTED', 'aborted before it was ready; the client goes on trying', reason)),
      )
      let cancel: (() => void) | undefined
      const wait = (ms: number) => {
        const next = Math.min(ms, LONGEST_TIMER_MS)
        cancel = this.#clock.setTimer(next, () => {
          if (ms > next) wait(ms - next)
          else fail(error('TIMEOUT', `not ready within ${timeoutMs} ms; the client goes on trying`, this.#machine.cause))
        })
      }
      if (Number.isFinite(timeoutMs)) wait(timeoutMs)
      const waiter: Waiter = {
        resolve: () => resolve(),
        reject,
        release() {
          cancel?.()
          unlisten()
        },
      }
      this.#readiness.add(waiter)
    })
  }

  /**
   * Sends one request when its turn comes.
   *
   * @returns The reply, whether the guest did what was asked or refused it.
   * @throws What the service's `encode` throws, for an invalid request; TypeError or RangeError for options that are wrong; {@link UpcallError} for everything else, with an honest `outcome`.
   */
  request(value: Req, options: WaitOptions = {}): Promise<Rep> {
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs } = checkWait(options)
      const id = ++this.#requestCount
      const ticket = { id, ...this.#prepare(value), deadline: this.#clock.now() + timeoutMs }
      if (signal?.aborted) {
        throw errorOf(
          'ABORTED',
          'not-sent',
          `${ticket.subject} ${this.#remote}: aborted before the call; nothing was sent`,
          signal.reason,
        )
      }
      const release = this.#aborts.add(signal, (reason) => this.#tell({ type: 'abort', id, reason }))
      this.#requests.set(id, { resolve: resolve as (value: unknown) => void, reject, release })
      this.#tell({ type: 'request', ticket })
    })
  }

  /** What is wrong with a request, or with the service, is seen by whoever debugs it as well as by the caller. */
  #prepare(value: Req): Prepared {
    try {
      return this.#service.prepare(value, this.#remote)
    } catch (error) {
      log('%s request refused, nothing was sent: %o', this.#remote, error)
      throw error
    }
  }

  /** Starts afresh after the client gave up (`ReconnectError`), or tries at once while it waits between two attempts. Otherwise does nothing. */
  reconnect(): void {
    this.#tell({ type: 'reconnect' })
  }

  /**
   * Ends the session: a request under way is rejected as `indeterminate`, those that wait as `not-sent`.
   *
   * @returns When the stream has closed. Twice is once.
   */
  close(): Promise<void> {
    if (this.#closed === undefined) {
      this.#tell({ type: 'close' })
      this.#closed = this.#connections.allGone(this.#clock, this.#closeMs)
    }
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** true: ready. An error: it will not be, as things are. undefined: not yet. */
  #readyNow(): true | UpcallError | undefined {
    switch (this.state) {
      case 'ServiceConnected':
      case 'ServiceBusy':
        return true
      case 'ReconnectError':
        return errorOf(
          'UNREACHABLE',
          'not-sent',
          `connect ${this.#remote}: given up; call reconnect() to try again`,
          this.#machine.cause,
        )
      case 'Closed':
        return new ClosedError('not-sent', `connect ${this.#remote}: the client is closed; make a new one`)
      default:
        return undefined
    }
  }

  /** The one way into the machine. What a listener or a stream does meanwhile is handled after what is under way. */
  #tell(event: OutsideEvent): void {
    this.#events.push(event)
    // A service that calls its client while the machine asks it something is heard when the machine is through.
    if (this.#handling) return
    this.#handling = true
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift())
        // One by one: a queue may be longer than a call can have arguments.
        for (const effect of this.#machine.handle(next, this.#clock.now())) this.#effects.push(effect)
    } finally {
      this.#handling = false
    }
    if (this.#performing) return
    this.#performing = true
    let performed = 0
    try {
      while (performed < this.#effects.length) this.#perform(this.#effects[performed++]!)
    } finally {
      this.#effects.splice(0, performed)
      this.#performing = false
    }
    this.#setTimer()
  }

  #perform(effect: Effect): void {
    log('%s %o', this.#remote, effect)
    if (diagnostics.hasSubscribers) diagnostics.publish({ client: this, remote: this.#remote, effect })
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

  #settle(id: number): Waiter | undefined {
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
      waiter.release()
      if (settled === true) waiter.resolve(undefined)
      else waiter.reject(settled)
    }
  }

  /** A listener that throws is its owner's bug and surfaces as such, but not in the middle of the client's work. */
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

  #setTimer(): void {
    const at = this.#machine.wakeAt
    if (this.#timer?.at === at) return
    this.#timer?.cancel()
    this.#timer = undefined
    if (!Number.isFinite(at)) return
    const ms = Math.min(Math.max(0, Math.ceil(at - this.#clock.now())), LONGEST_TIMER_MS)
    const cancel = this.#clock.setTimer(ms, () => {
      this.#timer = undefined
      this.#tell({ type: 'wake' })
    })
    this.#timer = { at, cancel }
  }
}

function checkWait(options: WaitOptions): { signal: AbortSignal | undefined; timeoutMs: number } {
  checkObject('options', options)
  const { signal } = options
  checkSignal(signal)
  return { signal, timeoutMs: duration('timeoutMs', options.timeoutMs, Number.POSITIVE_INFINITY) }
}
