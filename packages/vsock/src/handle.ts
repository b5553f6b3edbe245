import type { Socket } from 'node:net'
import type { VsockAddress } from './address.js'
import { withHandle } from './conceal.js'

// A net.Socket and the handle below it, which libuv reads and writes. Node offers no way to give a socket its handle later than its
// construction. This file uses `_handle`, `connecting`, and the owner that a handle knows. CI runs it on Node 20, 22, 24 and 26.

interface Handle {
  /** Bun's handle knows its owner by this, too. */
  data?: { self?: unknown }
  reading?: boolean
  readStop?: () => void
}

interface Internals {
  connecting: boolean
  _handle: Handle | null
  _unrefTimer(): void
}

const internalsOf = (socket: Socket) => socket as unknown as Internals

/** A connection after any handshake, in a socket that is not the caller's. Its handle is to be moved before the event loop turns. */
export interface Dialled {
  readonly carrier: Socket
  /** Over AF_VSOCK: the address that the peer sees. */
  readonly local?: VsockAddress | undefined
  /** The bytes after the handshake that have come in already. The guest may speak first. */
  readonly greeting: Buffer
  /** What the handshake took of the bytes that came in. */
  readonly replyBytes: number
  /** What the handshake wrote. */
  readonly commandBytes: number
}

/**
 * Moves the handle of a connected socket to a socket that has none. `from` must have given out all that it has read.
 *
 * @throws {Error} where a runtime does not keep its sockets as Node does.
 */
export function moveHandle(from: Socket, to: Socket): void {
  const handle = internalsOf(from)._handle as (Handle & Record<symbol, unknown>) | null
  const owners = handle === null ? [] : Object.getOwnPropertySymbols(handle).filter((symbol) => handle[symbol] === from)
  if (handle === null || owners.length === 0)
    throw new Error('this runtime does not keep its sockets as Node does: a connection cannot be handed over')
  internalsOf(from)._handle = null
  stop(handle)
  for (const symbol of owners) handle[symbol] = to
  if (handle.data?.self === from) handle.data.self = to
  // What async_hooks knows the connection by.
  for (const symbol of Object.getOwnPropertySymbols(from))
    if (symbol.description === 'async_id_symbol')
      Object.assign(to, { [symbol]: (from as unknown as Record<symbol, unknown>)[symbol] })
  internalsOf(to)._handle = handle
}

/** What net.Socket does once it is connected. `greeting` has come in already. Calls `told` after the events. */
export function tellConnected(socket: Socket, greeting: Buffer, told: () => void): void {
  if (socket.destroyed) return
  const internals = internalsOf(socket)
  internals.connecting = false
  internals._unrefTimer()
  const begin = () => {
    told()
    beginReading(socket, greeting)
  }
  try {
    socket.emit('connect')
    socket.emit('ready')
  } catch (error) {
    // The program may go on, and must not miss what has come in already.
    process.nextTick(begin)
    throw error
  }
  begin()
}

function beginReading(socket: Socket, greeting: Buffer): void {
  if (socket.destroyed) return
  if (greeting.length > 0 && !giveToHttp2(socket, greeting)) socket.push(greeting)
  // As net does it: this takes no bytes, it starts reading.
  if (!socket.isPaused()) socket.read(0)
}

interface Http2Handle {
  consume?: unknown
  receive?(bytes: Buffer): void
}

/**
 * HTTP/2 that has taken the handle reads below the socket. So it gets what has come in already as Node gives it what it finds in the
 * buffer of a socket that is connected.
 *
 * @returns false if there is no HTTP/2 session on the socket.
 */
function giveToHttp2(socket: Socket, bytes: Buffer): boolean {
  for (const session of valuesOf(socket)) {
    if (typeof (session as { goaway?: unknown }).goaway !== 'function') continue
    for (const handle of valuesOf(session) as Iterable<Http2Handle>) {
      if (typeof handle.consume !== 'function' || typeof handle.receive !== 'function') continue
      handle.receive(bytes)
      return true
    }
  }
  return false
}

/** The objects that an object refers to, by whatever key. */
function* valuesOf(object: object): Iterable<object> {
  for (const key of Reflect.ownKeys(object)) {
    const value: unknown = (object as Record<string | symbol, unknown>)[key]
    if (typeof value === 'object' && value !== null) yield value
  }
}

/** Stops a socket that has no taker yet from reading: its taker misses no event, and the kernel holds the sender back. */
export function holdReading(socket: Socket): void {
  withHandle(() => stop(internalsOf(socket)._handle))
}

/** Undoes `holdReading`. */
export function releaseReading(socket: Socket): void {
  if (!socket.destroyed && !socket.isPaused()) socket._read(0)
}

function stop(handle: Handle | null): void {
  handle?.readStop?.()
  if (handle) handle.reading = false
}

/** A socket without a handle waits from here on as a connecting socket does. */
export function setConnecting(socket: Socket): void {
  internalsOf(socket).connecting = true
}

/**
 * Stands in for the handle of a socket that is destroyed before it is connected. Node closes it as it closes any, and tells `'close'`
 * whether there was an error.
 */
export function closingHandle(): object {
  const close = (done: () => void) => void setImmediate(done)
  return { bytesRead: 0, bytesWritten: 0, close, reset: close, ref() {}, unref() {}, getAsyncId: () => -1 }
}

/**
 * What HTTP/2 sees as the handle of a socket that connects. It takes a socket without a handle for a stream that is connected. It uses
 * the handle from `'connect'` on.
 */
export function comingHandle(socket: Socket): object {
  return { isStreamBase: true, ref: () => socket.ref(), unref: () => socket.unref() }
}

export function setHandle(socket: Socket, handle: object): void {
  internalsOf(socket)._handle = handle
}
