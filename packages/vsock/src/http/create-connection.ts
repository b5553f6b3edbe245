import type { ClientRequestArgs } from 'node:http'
import type { CreateSocketOptions } from '../create-socket.js'
import { VsockSocket } from '../socket.js'
import { type AddressOf, destination } from './target.js'

/** `createConnection` of `http.request`, `http.Agent`, `http2.connect` and `ws`. */
export type CreateConnection = (request: ClientRequestArgs | URL) => VsockSocket

/**
 * Connections to an address for clients that take a function: `http.request({ createConnection: createConnection('hvsock://…') })`,
 * `http2.connect('http://guest', { createConnection: createConnection('hvsock://…') })`, `ws`. Host and port of the request only fill
 * its Host header, unless the address is a function of them.
 *
 * An `https:` request fails with `ENOTSUP`: it is never sent in the clear.
 *
 * @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an option that is wrong.
 */
export function createConnection(address: AddressOf, options: CreateSocketOptions = {}): CreateConnection {
  const to = destination(address, options, 'createConnection')
  return (request) => {
    try {
      return timed(to.open(to.addressOf(request)), request)
    } catch (error) {
      return failing(error as Error)
    }
  }
}

/** Starts the timer of the socket, as `net.connect` does: the timeouts of an agent depend on it. */
export function timed(socket: VsockSocket, { timeout }: { timeout?: number | undefined; href?: string }): VsockSocket {
  if (timeout) socket.setTimeout(timeout)
  return socket
}

/** A socket that fails in the next tick: the caller has yet to listen for the error. */
function failing(error: Error): VsockSocket {
  const socket = new VsockSocket({ halfClose: true })
  socket.beginDialling({ set() {}, abandon() {} })
  process.nextTick(() => socket.destroy(error))
  return socket
}
