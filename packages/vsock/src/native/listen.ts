import type { Socket } from 'node:net'
import { getSystemErrorName } from 'node:util'
import { AcceptPause } from '@upcall/foundation/addon/accept-pause'
import { adopt, type CreateSocket } from './adopt.js'
import type { Binding, Descriptor } from './binding.js'
import { LITTLE_ENDIAN } from './sockaddr.js'

export interface ListenTarget {
  readonly family: number
  /** What to bind. */
  readonly sockaddr: Uint8Array
  /** In place of binding: the descriptor of a bound socket, which is taken over. */
  readonly inherited?: number | undefined
  /** Connections the kernel keeps waiting; it caps this at net.core.somaxconn. undefined: an inherited socket listens, and keeps its own. */
  readonly backlog: number | undefined
  /** Socket options, set before binding; accepted connections inherit them. */
  readonly configure?: ((descriptor: Descriptor) => void) | undefined
}

export interface AcceptedHandlers<T> {
  readonly onConnection: (socket: T) => void
  /** The listener broke and is closed. */
  readonly onError: (error: unknown) => void
  /** Out of descriptors or memory: connections wait in the backlog, the next try is in `delayMs`. */
  readonly onPause?: ((error: unknown, delayMs: number) => void) | undefined
}

export interface ListenHandlers<T extends Socket> extends AcceptedHandlers<T> {
  readonly create: CreateSocket<T>
}

/** Calls `fn` once after `ms`, unless the returned function is called first. `ref` is whether waiting keeps the process alive. */
export type Sleep = (ms: number, fn: () => void, ref: boolean) => () => void

/** A listening socket. */
export interface Listener {
  /** What it is bound to, as raw sockaddr bytes. */
  readonly local: Uint8Array
  ref(): void
  unref(): void
  /** Idempotent. Connections that were accepted stay. */
  close(): void
}

/** Errors that pass when a descriptor or memory is freed. The connection is still in the backlog: waiting loses nothing. */
const EXHAUSTED: ReadonlySet<unknown> = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'])

/** Accepted in one go before other work gets its turn. */
const BATCH = 64

/**
 * Binds and listens; accepts by itself from then on, until it is closed.
 *
 * @throws the kernel's errno as a Node-style error; what was opened is closed then, and an inherited descriptor still the caller's.
 */
export function listenSocket<T extends Socket>(
  binding: Binding,
  { family, sockaddr, inherited, backlog, configure }: ListenTarget,
  handlers: ListenHandlers<T>,
  sleep: Sleep = systemSleep,
): Listener {
  const descriptor = inherited !== undefined ? binding.inherit(inherited) : binding.socket(family)
  try {
    configure?.(descriptor)
    if (inherited === undefined) binding.bind(descriptor, sockaddr)
    if (backlog !== undefined) binding.listen(descriptor, backlog)
    return new AcceptingListener(binding, descriptor, adopting(binding, descriptor, handlers.create), handlers, sleep)
  } catch (error) {
    // An inherited one is still the caller's.
    if (inherited === undefined) binding.close(descriptor)
    else binding.release(descriptor)
    throw error
  }
}

/** How connections are taken from the backlog. */
interface Taking<T> {
  /** The next one; undefined if none waits. */
  next(): T | undefined
  /** No more are taken. */
  end(): void
}

/** Accepts by itself from a descriptor that listens, and makes `take` of each connection. The listener owns the descriptor. */
export function acceptFrom<T>(
  binding: Binding,
  descriptor: Descriptor,
  take: (connection: Descriptor, peer: Uint8Array) => T,
  handlers: AcceptedHandlers<T>,
  sleep: Sleep = systemSleep,
): Listener {
  const next = () => {
    const accepted = binding.accept(descriptor)
    return accepted && take(accepted.descriptor, accepted.peer)
  }
  return new AcceptingListener(binding, descriptor, { next, end: () => {} }, handlers, sleep)
}

function adopting<T extends Socket>(binding: Binding, descriptor: Descriptor, create: CreateSocket<T>): Taking<T> {
  // Where the next connection goes, made before it is accepted: afterwards, for want of a number, it could only be dropped.
  let spare: Descriptor | undefined
  return {
    next() {
      spare ??= binding.placeholder()
      const accepted = binding.accept(descriptor)
      if (!accepted) return undefined
      const placeholder = spare
      spare = undefined
      return adopt(binding, accepted.descriptor, placeholder, accepted.peer, create)
    },
    end: () => spare && binding.close(spare),
  }
}

class AcceptingListener<T> implements Listener {
  readonly local: Uint8Array
  readonly #binding: Binding
  readonly #descriptor: Descriptor
  readonly #taking: Taking<T>
  readonly #handlers: AcceptedHandlers<T>
  readonly #pause: AcceptPause
  #closed = false
  #referenced = true

  constructor(binding: Binding, descriptor: Descriptor, taking: Taking<T>, handlers: AcceptedHandlers<T>, sleep: Sleep) {
    this.#binding = binding
    this.#descriptor = descriptor
    this.#taking = taking
    this.#handlers = handlers
    this.#pause = new AcceptPause((ms, fn) => sleep(ms, fn, this.#referenced))
    this.local = binding.getsockname(descriptor)
    this.#watch()
  }

  ref(): void {
    this.#referenced = true
    this.#binding.ref(this.#descriptor)
  }

  unref(): void {
    this.#referenced = false
    this.#binding.unref(this.#descriptor)
  }

  close(): void {
    this.#closed = true
    this.#pause.cancel()
    this.#binding.close(this.#descriptor)
    this.#taking.end()
  }

  #watch(): void {
    this.#binding.watch(this.#descriptor, this.#binding.READABLE, (events) => this.#onReady(events))
  }

  #onReady(events: number): void {
    if (events === 0) {
      this.#fail(pendingError(this.#binding, this.#descriptor))
      return
    }
    for (let i = 0; i < BATCH && !this.#closed; i++) {
      let socket: T | undefined
      try {
        socket = this.#taking.next()
      } catch (error) {
        if (EXHAUSTED.has((error as NodeJS.ErrnoException).code)) this.#pauseFor(error)
        else this.#fail(error)
        return
      }
      if (!socket) return
      this.#pause.reset()
      this.#handlers.onConnection(socket)
    }
  }

  #pauseFor(error: unknown): void {
    this.#binding.unwatch(this.#descriptor)
    const delayMs = this.#pause.begin(() => this.#watch())
    this.#handlers.onPause?.(error, delayMs)
  }

  #fail(error: unknown): void {
    this.close()
    this.#handlers.onError(error)
  }
}

function pendingError(binding: Binding, descriptor: Descriptor): Error {
  const value = binding.getsockopt(descriptor, binding.SOL_SOCKET, binding.SO_ERROR, 4)
  const errno = new DataView(value.buffer).getInt32(0, LITTLE_ENDIAN)
  const code = errno === 0 ? 'EIO' : getSystemErrorName(-errno)
  return Object.assign(new Error(`accept ${code}`), { code, errno: -errno, syscall: 'accept' })
}

function systemSleep(ms: number, fn: () => void, ref: boolean): () => void {
  const timer = setTimeout(fn, ms)
  if (!ref) timer.unref()
  return () => clearTimeout(timer)
}
