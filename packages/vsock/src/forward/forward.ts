import { EventEmitter } from 'node:events'
import { onAbort } from '@upcall/foundation/abort'
import { Admission } from '@upcall/foundation/admission'
import { callBack } from '@upcall/foundation/callback'
import { checkClock, checkObject, checkSignal, duration, integer, wrongValue } from '@upcall/foundation/check'
import { type Clock, setLongTimer, systemClock } from '@upcall/foundation/clock'
import { closeOnAbort } from '../acceptor.js'
import { abortedError } from '../errors.js'
import type { HybridProfile } from '../hybrid.js'
import type { Refusal } from '../hybrid-handshake.js'
import { type InheritedSocket, isInherited } from '../inherited.js'
import type { VsockConnectOptions } from '../native/options.js'
import { type ConnectOptions, checkDestination, planOf, type RetryOptions } from '../plan.js'
import type { Carried } from '../relay/index.js'
import { carry, type ForwardEnd, type ForwardedConnection, type ForwardTarget, follow } from './carry.js'
import { type Endpoint, type EndpointInit, toEndpoint } from './endpoint.js'
import { type EndpointListener, type Incoming, listenEndpoint } from './listener.js'
import { TcpError } from './tcp-error.js'

/** Connections at once. */
const DEFAULT_MAX = 1024

export interface ForwardOptions {
  /**
   * `hvsock://<path>:<port>` as `from` is the path itself: the forwarder answers CONNECT as a VMM does, once `to` is connected. Default
   * false: it takes what the guest connects to, on `<path>_<port>`.
   */
  asVmm?: boolean | undefined
  /** With `asVmm`: follows one VMM to the letter, as for `listenHybrid`. */
  profile?: HybridProfile | undefined
  /** Permissions of the socket file. */
  mode?: number | undefined
  /** Connections at once; up to 128 more wait, unread, and any more are refused. Default 1024. */
  max?: number | undefined
  /** For each connecting to `to`, in milliseconds. Default 5000, with `retry` its budget. */
  timeoutMs?: number | undefined
  /** As for `connect`. */
  retry?: boolean | RetryOptions | undefined
  /** As for `connect` and `listen`, on both sides. Over TCP each direction ends by itself. */
  halfClose?: boolean | undefined
  /** How long one direction may be silent after the other has ended, in milliseconds. Default: for ever, where both have half-close. */
  lingerMs?: number | undefined
  /** How long connections may go on after `close()` or the signal, in milliseconds. Default: they are cut at once. */
  graceMs?: number | undefined
  /** For `vsock://` addresses only. */
  vsock?: VsockConnectOptions | undefined
  /** Closes the forwarder; before it listens, `forward` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
  clock?: Clock | undefined
}

export interface ForwarderEvents {
  /** A connection was taken, and is now being connected. */
  connection: [connection: ForwardedConnection]
  /** Nothing of it is open any more. */
  closed: [connection: ForwardedConnection, end: ForwardEnd]
  /** A connection was closed before it was taken: too many wait or, with `asVmm`, its CONNECT was wrong or for another port. */
  refused: [refusal: Refusal]
  /** Accepting one connection failed; the forwarder goes on. Never thrown if there is no listener for it. */
  error: [error: Error]
  /** Nothing is open any more. */
  close: []
}

/**
 * Listens on `from`, opens a connection to `to` for each connection there, and carries bytes both ways: each direction by itself, no
 * faster than its reader takes them, EOF after all bytes, a reset as a reset. `from` and `to` are addresses, or TCP: `tcp:8080`,
 * `tcp:<host>:<port>`, `{ host, port }`. `from` may be `{ fd }`, a socket that another program has bound. `to` may be a function that gives an address or a stream for each connection.
 *
 * @throws {AddressError}, {RangeError} or {TypeError} for an argument that is wrong.
 * @throws {VsockError} or {TcpError} if it cannot listen on `from`. Failures of `to` are told connection by connection, by `'closed'`.
 */
export async function forward(
  from: EndpointInit | InheritedSocket,
  to: ForwardTarget,
  options: ForwardOptions = {},
): Promise<Forwarder> {
  const local = isInherited(from) ? from : toEndpoint(from)
  const plan = planForward(local, to, options)
  const { signal } = options
  if (signal?.aborted) throw aborted(local, signal.reason)
  const forwarder = await Forwarder.open(local, plan)
  if (signal?.aborted) {
    await forwarder.close()
    throw aborted(local, signal.reason)
  }
  closeOnAbort({ close: () => forwarder.end(signal?.reason), once: (event, fn) => forwarder.once(event, fn) }, signal)
  return forwarder
}

interface Plan {
  readonly options: ForwardOptions
  readonly to: ForwardTarget
  readonly max: number
  readonly graceMs: number
  /** The time for connecting. */
  readonly connectMs: number
  readonly clock: Clock
}

/** @throws {AddressError}, {RangeError} or {TypeError} */
function planForward(from: Endpoint | InheritedSocket, to: ForwardTarget, options: ForwardOptions): Plan {
  checkObject('options', options)
  const { asVmm = false, profile, max, graceMs, signal, clock = systemClock } = options
  checkSignal(signal)
  checkClock(clock)
  const { timeoutMs } = planOf(connectingOf(options))
  const kind = isInherited(from) ? 'descriptor' : `${from.transport} address`
  if (asVmm && kind !== 'hvsock address') wrongValue('asVmm', `false for a ${kind}`, asVmm)
  if (profile !== undefined && !asVmm) wrongValue('profile', 'left out without asVmm', profile)
  return {
    options,
    to: typeof to === 'function' ? to : destination(to),
    max: integer('max', max ?? DEFAULT_MAX, { min: 1 }),
    graceMs: graceMs === 0 ? 0 : duration('graceMs', graceMs, 0),
    connectMs: timeoutMs,
    clock,
  }
}

function destination(to: EndpointInit): Endpoint {
  const endpoint = toEndpoint(to)
  if (endpoint.transport !== 'tcp') checkDestination(endpoint)
  else if (endpoint.port === 0) wrongValue('to', 'one port, not any', 'tcp:any')
  return endpoint
}

function connectingOf({ timeoutMs, retry, halfClose, lingerMs, vsock, clock }: ForwardOptions): ConnectOptions {
  return { timeoutMs, retry, halfClose, lingerMs, vsock, clock }
}

function aborted(local: Endpoint | InheritedSocket, reason: unknown): Error {
  if (isInherited(local)) return abortedError('listen', undefined, reason)
  return local.transport === 'tcp' ? new TcpError('listen', local, reason, 'ABORTED') : abortedError('listen', local, reason)
}

/** What a forwarder has carried, in bytes, over all connections since it opened. It never goes back. */
export interface ForwarderTraffic {
  /** Bytes of `from` that `to` took. */
  readonly sent: number
  /** Bytes of `to` that `from` took. */
  readonly received: number
}

/** Owns its listener and every connection. */
export class Forwarder extends EventEmitter<ForwarderEvents> implements AsyncDisposable {
  readonly #listener: EndpointListener
  readonly #plan: Plan
  readonly #admission: Admission<Incoming>
  /** Ends the connecting. */
  readonly #closing = new AbortController()
  /** Ends what is connected. */
  #cut = new AbortController()
  /** What each connection that is open has carried so far. */
  readonly #open = new Set<() => Carried>()
  /** What those that have ended carried. */
  #ended: ForwarderTraffic = { sent: 0, received: 0 }
  #last = 0
  #closed: Promise<void> | undefined

  /** @internal Made by `forward`. */
  static async open(from: Endpoint | InheritedSocket, plan: Plan): Promise<Forwarder> {
    const { options, connectMs } = plan
    let forwarder: Forwarder | undefined
    const listener = await listenEndpoint(
      from,
      {
        ...options,
        handshakeTimeoutMs: connectMs,
        onRefused: (refusal) => void forwarder?.emit('refused', refusal),
        onError: (error) => void (forwarder && forwarder.listenerCount('error') > 0 && forwarder.emit('error', error)),
      },
      // Later, when a caller that awaits `forward` has put its listeners in place.
      (incoming) => void setImmediate(() => forwarder?.offer(incoming)),
    )
    forwarder = new Forwarder(listener, plan)
    return forwarder
  }

  private constructor(listener: EndpointListener, plan: Plan) {
    super()
    this.#listener = listener
    this.#plan = plan
    const onOverflow = () => callBack(() => this.emit('refused', { port: undefined, reason: 'too-many' }))
    this.#admission = new Admission(plan.max, (incoming) => this.#serve(incoming), onOverflow)
  }

  /** Where it listens, with the port that the kernel chose, if any port was asked for. */
  get address(): Endpoint {
    return this.#listener.address
  }

  /** How many connections are open or being connected. */
  get connections(): number {
    return this.#admission.active
  }

  /**
   * What it has carried until now, connections that are open included. A look costs one step for each open connection; the traffic is
   * not slowed between looks. When all has ended, it is the sum of `sent` and of `received` of every `'closed'`.
   */
  get traffic(): ForwarderTraffic {
    let { sent, received } = this.#ended
    for (const carried of this.#open) {
      const { toFar, toNear } = carried()
      sent += toFar
      received += toNear
    }
    return { sent, received }
  }

  /**
   * Takes no more connections, removes the socket file, gives those that are connected `graceMs`, and cuts what is open then. Resolves
   * when nothing is open. Idempotent.
   */
  close(): Promise<void> {
    return this.end(new Error('the forwarder was closed'))
  }

  /** Cuts every connection, also in the middle of the grace. */
  closeAllConnections(): void {
    const cut = this.#cut
    this.#cut = new AbortController()
    cut.abort(this.#closing.signal.reason ?? new Error('all connections of the forwarder were closed'))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** @internal */
  end(reason: unknown): Promise<void> {
    this.#closed ??= this.#shut(reason)
    return this.#closed
  }

  /** @internal */
  offer(incoming: Incoming): void {
    this.#admission.offer(incoming)
  }

  async #serve(incoming: Incoming): Promise<void> {
    const { signal, release } = follow(incoming.signal, this.#closing.signal)
    const connection: ForwardedConnection = { id: ++this.#last, remote: incoming.remote, signal }
    const { options, to, connectMs, clock } = this.#plan
    const { lingerMs } = options
    const cut = this.#cut.signal
    callBack(() => this.emit('connection', connection))
    let carried: (() => Carried) | undefined
    const onOpen = (read: () => Carried) => {
      carried = read
      this.#open.add(read)
    }
    const end = await carry(incoming, connection, {
      to,
      connectMs,
      connecting: connectingOf(options),
      lingerMs,
      clock,
      cut,
      onOpen,
    })
    release()
    // In one go, so that no look finds it in both or in neither.
    if (carried) this.#open.delete(carried)
    this.#ended = { sent: this.#ended.sent + end.sent, received: this.#ended.received + end.received }
    callBack(() => this.emit('closed', connection, end))
  }

  async #shut(reason: unknown): Promise<void> {
    // In the next microtask, so that whatever is done here meets a #closed that is set.
    await undefined
    this.#admission.stop()
    this.#closing.abort(reason)
    try {
      await this.#listener.stop()
    } finally {
      const idle = this.#admission.idle()
      await this.#grace(idle)
      this.closeAllConnections()
      await idle
      try {
        await this.#listener.close()
      } finally {
        callBack(() => this.emit('close'))
      }
    }
  }

  /** Resolves when all connections have ended, when their time is over, or when they have been cut. */
  async #grace(idle: Promise<void>): Promise<void> {
    const { graceMs, clock } = this.#plan
    if (graceMs === 0) return
    const { signal } = this.#cut
    await new Promise<void>((resolve) => {
      const cancel = setLongTimer(clock, graceMs, done)
      const unlisten = onAbort(signal, done)
      void idle.then(done)

      function done() {
        cancel()
        unlisten()
        resolve()
      }
    })
  }
}
