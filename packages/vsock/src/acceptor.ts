import { createServer, type ServerOpts } from 'node:net'
import { checkOptions, checkSignal } from './abort.js'
import { type Address, guestInitiatedPath, type HvsockAddress, type UnixAddress, type VsockAddress } from './address.js'
import { type BindOptions, bindUnix, checkBindOptions, DEFAULT_BACKLOG } from './bind.js'
import { type Clock, checkDuration } from './clock.js'
import { abortedError } from './errors.js'
import type { VsockOptions } from './native/options.js'
import { listenNative } from './native/vsock.js'
import { VsockSocket } from './socket.js'

/** The options of accepting that `listen` and `bindServer` share. */
export interface AcceptOptions extends BindOptions {
  /** As for `connect`, for every accepted socket. */
  halfClose?: boolean | undefined
  /** As for `connect`, for every accepted socket. */
  lingerMs?: number | undefined
  clock?: Clock | undefined
  /** For `vsock://` addresses only: buffer sizes, which every accepted socket inherits. */
  vsock?: VsockOptions | undefined
}

export interface AcceptHandlers {
  readonly onConnection: (socket: VsockSocket) => void
  /** Accepting failed. With `closed` the acceptor is closed; otherwise connections wait in the backlog and are tried again. */
  readonly onError: (error: Error, closed: boolean) => void
}

/** A bound address. It accepts connections, and keeps them until `start` says who takes them. */
export interface Acceptor {
  /** What is bound: with the port that the kernel chose, if any port was asked for. */
  readonly address: Address
  /** The path of the socket file; undefined over AF_VSOCK. */
  readonly path: string | undefined
  start(handlers: AcceptHandlers): void
  /** Removes the socket file, then stops listening. Idempotent. Connections that were handed over stay. */
  stop(): Promise<void>
  ref(): void
  unref(): void
}

/** @throws {RangeError} or {TypeError} for an option that is wrong. */
export function checkAcceptOptions(options: AcceptOptions): void {
  checkOptions(options)
  checkSignal(options.signal)
  checkBindOptions(options)
  if (options.lingerMs !== undefined) checkDuration('lingerMs', options.lingerMs)
}

/** Binds an address. The signal of the options gives up the binding, and is not looked at afterwards. */
export async function openAcceptor(local: Address, options: AcceptOptions, socketOptions: ServerOpts = {}): Promise<Acceptor> {
  return local.transport === 'vsock' ? openVsock(local, options, socketOptions) : openUnix(local, options, socketOptions)
}

async function openUnix(
  local: HvsockAddress | UnixAddress,
  options: AcceptOptions,
  socketOptions: ServerOpts,
): Promise<Acceptor> {
  const { lingerMs, clock } = options
  const halfClose = options.halfClose ?? local.transport !== 'hvsock'
  const path = local.transport === 'hvsock' ? guestInitiatedPath(local) : local.path
  const handover = new Handover()
  const server = createServer({ allowHalfOpen: true, ...socketOptions })
  server.on('connection', (socket) => handover.connection(VsockSocket.adopt(socket, { local, halfClose, lingerMs, clock })))
  server.on('error', (error) => handover.error(error, false))
  try {
    const release = await bindUnix(server, local, path, options)
    let stopped: Promise<void> | undefined
    return {
      address: local,
      path,
      start: (handlers) => handover.start(handlers),
      stop() {
        handover.stop()
        stopped ??= release()
        return stopped
      },
      ref: () => void server.ref(),
      unref: () => void server.unref(),
    }
  } catch (error) {
    // There may be connections already.
    handover.stop()
    throw error
  }
}

function openVsock(local: VsockAddress, options: AcceptOptions, { allowHalfOpen = true }: ServerOpts): Acceptor {
  const { signal, lingerMs, clock, backlog = DEFAULT_BACKLOG, halfClose = true, vsock } = options
  if (signal?.aborted) throw abortedError('listen', local, signal.reason)
  const handover = new Handover()
  const listener = listenNative(
    local,
    { backlog, halfClose, lingerMs, clock, vsock },
    {
      onConnection(socket) {
        socket.allowHalfOpen = allowHalfOpen
        handover.connection(socket)
      },
      onError: (error, closed) => handover.error(error, closed),
    },
  )
  return {
    address: listener.address,
    path: undefined,
    start: (handlers) => handover.start(handlers),
    async stop() {
      handover.stop()
      listener.close()
    },
    ref: listener.ref,
    unref: listener.unref,
  }
}

/**
 * Keeps what comes before `start`: a socket file accepts connections as soon as it is in its place, and its server learns of that
 * some turns of the event loop later.
 */
class Handover {
  #handlers: AcceptHandlers | undefined
  #early: (() => void)[] = []
  #stopped = false

  connection(socket: VsockSocket): void {
    if (this.#stopped) {
      socket.on('error', ignore).destroy()
      return
    }
    if (this.#handlers) {
      this.#handlers.onConnection(socket)
      return
    }
    socket.on('error', ignore)
    this.#early.push(() => {
      if (this.#stopped || !this.#handlers) socket.destroy()
      else if (!socket.destroyed) this.#handlers.onConnection(socket.off('error', ignore))
    })
  }

  error(error: Error, closed: boolean): void {
    if (this.#stopped) return
    if (this.#handlers) this.#handlers.onError(error, closed)
    else this.#early.push(() => !this.#stopped && this.#handlers?.onError(error, closed))
  }

  start(handlers: AcceptHandlers): void {
    this.#handlers = handlers
    this.#flush()
  }

  stop(): void {
    this.#stopped = true
    this.#flush()
  }

  #flush(): void {
    for (const act of this.#early.splice(0)) act()
  }
}

function ignore(): void {}
