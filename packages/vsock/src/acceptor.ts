import { createServer, type ServerOpts } from 'node:net'
import { onAbort } from '@upcall/foundation/abort'
import { callBack } from '@upcall/foundation/callback'
import { checkClock, checkObject, checkSignal, checkSwitch, duration, wrongValue } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import {
  type Address,
  formatAddress,
  guestInitiatedPath,
  type HvsockAddress,
  toAddress,
  type UnixAddress,
  type VsockAddress,
} from './address.js'
import { type BindOptions, bindUnix, checkBindOptions, DEFAULT_BACKLOG, listenOnInherited } from './bind.js'
import { abortedError, type VsockError } from './errors.js'
import { holdReading, releaseReading } from './handle.js'
import { type InheritedSocket, type Inspection, inspectInherited, isInherited, type SocketType } from './inherited.js'
import type { VsockOptions } from './native/options.js'
import { listenNative } from './native/vsock.js'
import { VsockSocket } from './socket.js'
import { trace } from './trace.js'

/** What `listen` and `bindServer` have in common. */
export interface AcceptOptions extends BindOptions {
  /**
   * As `net.createServer` has it: whether an accepted socket stays writable after its peer has ended. Default false: such a socket sends
   * what was written, ends, and closes. `bindServer` goes by its server, not by this option.
   */
  allowHalfOpen?: boolean | undefined
  /** As for `connect`, for every accepted socket. */
  halfClose?: boolean | undefined
  /** As for `connect`, for every accepted socket. */
  lingerMs?: number | undefined
  clock?: Clock | undefined
  /** For `vsock://` addresses only: buffer sizes, which every accepted socket inherits. */
  vsock?: VsockOptions | undefined
}

export interface AcceptHandlers<Accepted = VsockSocket> {
  readonly onConnection: (socket: Accepted) => void
  /** Accepting failed. With `closed` the acceptor is closed; otherwise connections wait in the backlog until the next try. */
  readonly onError: (error: Error, closed: boolean) => void
}

/** A bound address. It accepts connections, and keeps them until `start` says who takes them. */
export interface Acceptor<Accepted = VsockSocket> {
  /** What is bound: with the port that the kernel chose, if any port was asked for. */
  readonly address: Address
  /** The path of the socket file; undefined over AF_VSOCK. */
  readonly path: string | undefined
  start(handlers: AcceptHandlers<Accepted>): void
  /** Removes the socket file, then stops listening. Idempotent. Connections that were handed over stay. */
  stop(): Promise<void>
  ref(): void
  unref(): void
}

/** Where a server listens: an address that it binds, or a socket that another program has bound. */
export interface Place {
  readonly local: Address
  readonly inherited?: Inspection | undefined
}

/**
 * @throws {AddressError} for an address that cannot be bound; {VsockError} for a descriptor that cannot listen; {TypeError} for options that
 * do not go with a descriptor.
 */
export function placeOf(where: Address | string | InheritedSocket, options: BindOptions): Place {
  return isInherited(where) ? inheritedPlace(where, options) : { local: toAddress(where) }
}

/** The place of a descriptor, which listens for streams or for messages. Throws as `placeOf` does for one. */
export function inheritedPlace(where: InheritedSocket, { mode }: BindOptions, type?: SocketType): Required<Place> {
  if (mode !== undefined) wrongValue('mode', 'left out: the file of an inherited socket belongs to its maker', mode)
  const inherited = inspectInherited('listen', where, type)
  return { local: inherited.local ?? { transport: 'unix', path: `fd:${inherited.fd}` }, inherited }
}

/** @throws {RangeError} or {TypeError} for an option that is wrong. */
export function checkAcceptOptions(options: AcceptOptions): void {
  checkObject('options', options)
  checkSignal(options.signal)
  checkBindOptions(options)
  checkSwitch('allowHalfOpen', options.allowHalfOpen)
  checkSwitch('halfClose', options.halfClose)
  if (options.clock !== undefined) checkClock(options.clock)
  duration('lingerMs', options.lingerMs, 1)
}

/**
 * Binds an address. The signal of the options gives up the binding. It may abort before the caller has the acceptor: so the caller
 * looks at it (`givenUp`), and without another wait hands it to `closeOnAbort`.
 */
export async function openAcceptor(place: Place, options: AcceptOptions, socketOptions: ServerOpts = {}): Promise<Acceptor> {
  const { local, inherited } = place
  const { signal } = options
  if (signal?.aborted) throw abortedError('listen', local, signal.reason)
  const acceptor = await (local.transport === 'vsock'
    ? openVsock(local, inherited, options, socketOptions)
    : openUnix(local, inherited, options, socketOptions))
  trace({ type: 'listening', local: acceptor.address }, 'listen %s: listening', formatAddress(acceptor.address))
  return acceptor
}

async function openUnix(
  local: HvsockAddress | UnixAddress,
  inherited: Inspection | undefined,
  options: AcceptOptions,
  socketOptions: ServerOpts,
): Promise<Acceptor> {
  const { lingerMs, clock, allowHalfOpen = false } = options
  const halfClose = options.halfClose ?? local.transport !== 'hvsock'
  const path = local.transport === 'hvsock' ? guestInitiatedPath(local) : local.path
  const handover = new Handover(local)
  const server = createServer({ allowHalfOpen, ...socketOptions })
  server.on('connection', (socket) => handover.connection(VsockSocket.adopt(socket, { local, halfClose, lingerMs, clock })))
  server.on('error', (error) => handover.error(error, false))
  try {
    const release = await (inherited ? listenOnInherited(server, inherited, options) : bindUnix(server, local, path, options))
    return {
      address: local,
      path,
      start: (handlers) => handover.start(handlers),
      stop: () => handover.stop(release),
      ref: () => void server.ref(),
      unref: () => void server.unref(),
    }
  } catch (error) {
    // There may be connections already.
    await handover.stop(async () => {})
    throw error
  }
}

async function openVsock(
  local: VsockAddress,
  inherited: Inspection | undefined,
  options: AcceptOptions,
  socketOptions: ServerOpts,
): Promise<Acceptor> {
  const { lingerMs, clock, halfClose = true, vsock } = options
  const backlog = options.backlog ?? (inherited?.listening ? undefined : DEFAULT_BACKLOG)
  const { allowHalfOpen = options.allowHalfOpen ?? false, pauseOnConnect = false } = socketOptions
  const handover = new Handover(local)
  const listener = listenNative(
    local,
    { inherited: inherited?.fd, backlog, halfClose, allowHalfOpen, lingerMs, clock, vsock },
    {
      onConnection(socket) {
        if (pauseOnConnect) socket.pause()
        handover.connection(socket)
      },
      onError: (error, closed) => handover.error(error, closed),
    },
  )
  return {
    address: listener.address,
    path: undefined,
    start: (handlers) => handover.start(handlers),
    stop: () => handover.stop(async () => listener.close()),
    ref: listener.ref,
    unref: listener.unref,
  }
}

/**
 * Keeps what comes before `start`: a socket file accepts connections as soon as it is in its place, and its server learns of that
 * some turns of the event loop later.
 */
class Handover {
  readonly #local: Address
  #handlers: AcceptHandlers | undefined
  #early: (() => void)[] = []
  #stopped: Promise<void> | undefined

  constructor(local: Address) {
    this.#local = local
  }

  connection(socket: VsockSocket): void {
    if (this.#stopped) {
      socket.on('error', ignore).destroy()
      return
    }
    const { local, remote } = socket
    trace({ type: 'accepted', local, remote }, 'listen %s: accepted', formatAddress(this.#local))
    if (this.#handlers) {
      this.#handlers.onConnection(socket)
      return
    }
    socket.on('error', ignore)
    holdReading(socket)
    this.#early.push(() => {
      if (this.#stopped || !this.#handlers) return void socket.destroy()
      if (socket.destroyed) return
      releaseReading(socket)
      this.#handlers.onConnection(socket.off('error', ignore))
    })
  }

  error(error: Error, closed: boolean): void {
    const local = this.#local
    trace({ type: 'accept-failed', local, error, closed }, 'listen %s: accepting failed: %s', formatAddress(local), textOf(error))
    if (this.#handlers) this.#handlers.onError(error, closed)
    else this.#early.push(() => !this.#stopped && this.#handlers?.onError(error, closed))
  }

  start(handlers: AcceptHandlers): void {
    this.#handlers = handlers
    this.#flush()
  }

  stop(release: () => Promise<void>): Promise<void> {
    if (this.#stopped) return this.#stopped
    this.#stopped = release()
    this.#flush()
    trace({ type: 'closed', local: this.#local }, 'listen %s: closed', formatAddress(this.#local))
    return this.#stopped
  }

  #flush(): void {
    for (const act of this.#early.splice(0)) callBack(act)
  }
}

function ignore(): void {}

/** What a caller throws whose signal has aborted since the address was bound. Closes the acceptor. */
export async function givenUp(acceptor: Pick<Acceptor, 'address' | 'stop'>, { reason }: AbortSignal): Promise<VsockError> {
  await acceptor.stop()
  return abortedError('listen', acceptor.address, reason)
}

/** Ties a server's life to its caller's signal, for as long as the server is open. */
export function closeOnAbort(
  server: { close(): Promise<void>; once(event: 'close', listener: () => void): unknown },
  signal: AbortSignal | undefined,
): void {
  const unlisten = onAbort(signal, () => {
    // Only a file that cannot be removed makes this fail, and there is no caller to tell.
    server.close().catch((error: unknown) => trace({ type: 'close-failed', error }, 'close: %s', textOf(error)))
  })
  server.once('close', unlisten)
}
