import type { CreateSocketOptions } from '../create-socket.js'
import type { VsockSocket } from '../socket.js'
import { type AddressOf, destination } from './target.js'

/** What undici hands to a connector; the fields it has beyond these do not matter here. */
export interface ConnectorOptions {
  hostname: string
  protocol: string
  port: string
}

export type ConnectorCallback = (...result: [error: null, socket: VsockSocket] | [error: Error, socket: null]) => void

/** The function that undici calls. undici 8 gives the connecting up by destroying the socket that it returns. */
export type Connector = (request: ConnectorOptions, callback: ConnectorCallback) => VsockSocket | undefined

/**
 * The `connect` option of undici's `Client`, `Pool` and `Agent`:
 * `new Client('http://guest', { connect: connector('hvsock://…') })`. HTTP/1.1 only; `https:` is refused, never sent in the clear.
 *
 * undici applies its own `connectTimeout` only to its own connector. `timeoutMs` of the options takes its place.
 *
 * @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an option that is wrong.
 */
export function connector(address: AddressOf, options: CreateSocketOptions = {}): Connector {
  const to = destination(address, options, 'the connector')
  return (request, callback) => {
    let socket: VsockSocket
    try {
      socket = to.open(to.addressOf(request))
    } catch (error) {
      process.nextTick(() => callback(error as Error, null))
      return undefined
    }
    const onConnect = () => {
      socket.off('error', onError)
      callback(null, socket)
    }
    const onError = (error: Error) => {
      socket.off('connect', onConnect)
      callback(error, null)
    }
    return socket.once('connect', onConnect).once('error', onError)
  }
}
