import { Socket, type SocketConstructorOpts } from 'node:net'
import { type Clock, setLongTimer, systemClock } from '@upcall/foundation/clock'
import type { Address } from './address.js'
import { concealing, isAsking, keepOpen, withHandle } from './conceal.js'
import { VsockError } from './errors.js'
import { closingHandle, comingHandle, type Dialled, moveHandle, setConnecting, setHandle, tellConnected } from './handle.js'

/** How long a peer may stay silent after `end()` on a transport without half-close. */
export const DEFAULT_LINGER_MS = 5_000

export interface VsockSocketInit {
  local?: Address | undefined
  remote?: Address | undefined
  halfClose: boolean
  /** Default 5000 ms. */
  lingerMs?: number | undefined
  clock?: Clock | undefined
}

const LINGER = Symbol('linger')
const DIALLING = Symbol('dialling')
const UNCOUNTED = Symbol('uncounted')

/** What a socket that is being connected has in place of a handle. */
export interface Dialling {
  /** Whether it keeps the process alive. */
  set(referenced: boolean): void
  /** The socket is destroyed. Closes everything that was opened for it. */
  abandon(error: Error | null): void
}

/** Bytes of the connection that the owner of the socket has no part in. */
interface Uncounted {
  /** The reply of the VMM; until the owner knows of the connection, also what came with it. */
  read: number
  /** The command to the VMM. */
  written: number
}

interface Linger {
  readonly ms: number
  readonly clock: Clock
  /** The owner wants no more data: nothing is lost by shutting down at once. */
  abandoned: boolean
  /** Sends the EOF that `end()` holds back. */
  proceed: (() => void) | undefined
}

/**
 * A `net.Socket` with addresses, the same on every transport.
 *
 * `allowHalfOpen` is Node's own: where it is false, which is the default, the peer's end ends this side, too, after all that was written.
 *
 * `end()` with `halfClose: true` is Node's own: the peer sees EOF and may go on sending.
 * With `halfClose: false` an EOF sent early would make the VMM drop what the guest still has to say. So `end()` flushes, and sends
 * EOF once the guest has ended its side; until then the guest sees none, and `'finish'` waits. A guest that stays silent for
 * `lingerMs` without ending makes the socket fail with a `VsockError` `ETIMEDOUT` (op `shutdown`), so that no byte is lost in silence.
 * `destroy()` and `destroySoon()` do not wait.
 *
 * The same holds for a stream that wraps such a socket. TLS would otherwise end it below JavaScript, so a connected socket with
 * `halfClose: false` shows no `_handle`: `tls.connect({ socket })` works on its methods. HTTP/2 ends it by `end()` and takes the handle.
 * It cannot be the stdio of a child process.
 */
export class VsockSocket extends Socket {
  /** This end's address, if it has one: the listening address of an accepted socket. */
  declare readonly local: Address | undefined
  /** The other end's address, if it has one: the address that was dialled. */
  declare readonly remote: Address | undefined
  /** Whether EOF in one direction leaves the other one open on this transport, as the maker of the socket declared. */
  declare readonly halfClose: boolean
  declare private readonly [LINGER]: Linger
  declare private [DIALLING]: Dialling | undefined
  declare private readonly [UNCOUNTED]: Uncounted

  constructor(init: VsockSocketInit, options: SocketConstructorOpts = {}) {
    super(options)
    define(this, init)
  }

  /** Makes a VsockSocket of a socket that `net.Server` accepted. */
  static adopt(socket: Socket, init: VsockSocketInit): VsockSocket {
    return become(socket, init)
  }

  /**
   * Says what connects this socket, which waits as a `net.Socket` does that is connecting.
   *
   * @internal
   */
  beginDialling(dialling: Dialling): void {
    this[DIALLING] = dialling
    setConnecting(this)
  }

  /**
   * Gives the socket a connection, and tells it.
   *
   * @internal
   */
  finishDialling({ carrier, local, greeting, replyBytes, commandBytes }: Dialled): void {
    moveHandle(carrier, this)
    this[DIALLING] = undefined
    Object.defineProperty(this, 'local', { value: local })
    Object.assign(this[UNCOUNTED], { read: replyBytes + greeting.length, written: commandBytes })
    if (!this.halfClose) conceal(this)
    // In a tick of its own: what a listener throws is then an uncaught exception, as it is with any event.
    process.nextTick(tellConnected, this, greeting, () => {
      this[UNCOUNTED].read = replyBytes
    })
  }

  override ref(): this {
    this[DIALLING]?.set(true)
    // Without a handle, it undoes at 'connect' what an unref() before it does there.
    return super.ref()
  }

  override unref(): this {
    this[DIALLING]?.set(false)
    return super.unref()
  }

  // TLS takes a socket without a handle as a stream, whatever the socket has later.
  override once(event: string | symbol, listener: (...args: never[]) => void): this {
    if (event === 'connect' && this[DIALLING] && isAsking('tls')) keepOpen(this)
    return super.once(event as 'connect', listener as () => void)
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const dialling = this[DIALLING]
    if (dialling) {
      this[DIALLING] = undefined
      setHandle(this, closingHandle())
      dialling.abandon(error)
    }
    super._destroy(error, callback)
  }

  // HTTP/2 ends the socket when its session is over: it reads no more, and before `'connect'` it has nothing to send.
  override end(...args: unknown[]): this {
    const over = (this[DIALLING] || !this.halfClose) && isAsking('http2')
    if (over) this[LINGER].abandoned = true
    super.end(...(args as []))
    if (over && this[DIALLING]) this.destroy()
    return this
  }

  override destroySoon(): void {
    this[LINGER].abandoned = true
    this[LINGER].proceed?.()
    super.destroySoon()
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.halfClose || this.readableEnded || this[LINGER].abandoned) {
      super._final(callback)
      return
    }
    const linger = this[LINGER]
    const { clock, ms } = linger
    let seen = this.bytesRead
    let cancel = setLongTimer(clock, ms, check)
    const self = this
    linger.proceed = proceed
    this.once('end', proceed).once('close', stop)

    function stop() {
      cancel()
      linger.proceed = undefined
      self.off('end', proceed).off('close', stop)
    }
    function proceed() {
      stop()
      withHandle(() => Socket.prototype._final.call(self, callback))
    }
    function check() {
      // Bytes that wait here for a slow reader are not the peer's silence.
      if (self.bytesRead !== seen || self.readableLength > 0) {
        seen = self.bytesRead
        cancel = setLongTimer(clock, ms, check)
        return
      }
      stop()
      self.destroy(lingerError(self, ms))
    }
  }
}

const { get: handle, set: setsHandle } = Object.getOwnPropertyDescriptor(Socket.prototype, '_handle') ?? {}
if (handle && setsHandle)
  Object.defineProperty(VsockSocket.prototype, '_handle', {
    configurable: true,
    set: setsHandle,
    get(this: VsockSocket): unknown {
      return handle.call(this) ?? (this[DIALLING] && isAsking('http2') ? comingHandle(this) : null)
    },
  })

// Without the handshake. Outside of the class: in Node's types they are fields.
for (const [name, uncounted] of [
  ['bytesRead', 'read'],
  ['bytesWritten', 'written'],
] as const) {
  const { get } = Object.getOwnPropertyDescriptor(Socket.prototype, name) ?? {}
  if (get)
    Object.defineProperty(VsockSocket.prototype, name, {
      configurable: true,
      get(this: { [UNCOUNTED]: Uncounted }) {
        const counted: number | undefined = get.call(this)
        return counted && Math.max(0, counted - this[UNCOUNTED][uncounted])
      },
    })
}

// Outside of the class: the bundler renames a class that names itself, and `inspect(socket)` would show the new name.
function become(socket: Socket, init: VsockSocketInit): VsockSocket {
  // net.Server has no way to choose the class of its sockets. Nothing here is a private field, so the prototype is all it takes.
  Object.setPrototypeOf(socket, VsockSocket.prototype)
  define(socket as VsockSocket, init)
  return socket as VsockSocket
}

function define(
  socket: VsockSocket,
  { local, remote, halfClose, lingerMs = DEFAULT_LINGER_MS, clock = systemClock }: VsockSocketInit,
) {
  const linger: Linger = { ms: lingerMs, clock, abandoned: false, proceed: undefined }
  Object.defineProperties(socket, {
    local: { value: local, enumerable: true, configurable: true },
    remote: { value: remote, enumerable: true },
    halfClose: { value: halfClose, enumerable: true },
    [LINGER]: { value: linger },
    [DIALLING]: { value: undefined, writable: true },
    [UNCOUNTED]: { value: { read: 0, written: 0 } },
  })
  if (!halfClose && !socket.pending) conceal(socket)
}

function conceal(socket: VsockSocket): void {
  Object.setPrototypeOf(socket, concealedLike(socket))
}

/** One for each class: a socket may be of a class that extends this one. */
const concealed = new WeakMap<object, VsockSocket>()

function concealedLike(socket: VsockSocket): VsockSocket {
  const shown = Object.getPrototypeOf(socket) as VsockSocket
  const known = concealed.get(shown) ?? concealing(shown)
  concealed.set(shown, known)
  return known
}

function lingerError({ local, remote }: VsockSocket, ms: number): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'shutdown',
    local,
    remote,
    what: `the peer neither sent nor ended within ${ms} ms after end(), and without half-close the transport cannot tell it`,
    next: 'Let the guest end first, call destroy(), or pass halfClose: true if the VMM has half-close (Cloud Hypervisor since 2026-06).',
  })
}
