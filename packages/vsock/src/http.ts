import type { ClientRequestArgs } from 'node:http'
import type { Duplex } from 'node:stream'
import { type Address, toAddress } from './address.js'
import { type ConnectOptions, connect } from './connect.js'
import { VsockError } from './errors.js'
import type { VsockSocket } from './socket.js'

/** `createConnection` of `http.Agent` and of `http.request`, which take the callback with a Duplex. */
export type CreateConnection = (options: ClientRequestArgs, callback: (error: Error | null, socket: Duplex) => void) => undefined

/**
 * HTTP from Node's own client to an address: `http.request({ createConnection: createConnection('hvsock://…') })`, or kept alive,
 * `Object.assign(new http.Agent({ keepAlive: true }), { createConnection: createConnection('hvsock://…') })`. Host and port of the
 * request only fill its Host header. One agent serves one address.
 */
export function createConnection(address: Address | string, options: ConnectOptions = {}): CreateConnection {
  const remote = toAddress(address)
  return (request, callback) => {
    const signals = [options.signal, request.signal].filter((signal) => signal !== undefined)
    // Node's types give the callback no way to leave out the socket, Node's code does.
    const failed = callback as (error: Error) => void
    connect(remote, { ...options, signal: signals.length > 0 ? AbortSignal.any(signals) : undefined }).then(
      (socket) => callback(null, socket),
      failed,
    )
    return undefined
  }
}

/** What undici hands to a connector; the fields it has beyond these do not matter here. */
export interface ConnectorOptions {
  hostname: string
  protocol: string
  port: string
}

export type ConnectorCallback = (...result: [error: null, socket: VsockSocket] | [error: Error, socket: null]) => void

/**
 * The `connect` option of undici's `Client`, `Pool` and `Agent`:
 * `new Client('http://guest', { connect: connector('hvsock://…') })`. Plain HTTP only; `https:` is refused, never sent in the clear.
 */
export function connector(address: Address | string, options: ConnectOptions = {}) {
  const remote = toAddress(address)
  return (request: ConnectorOptions, callback: ConnectorCallback): void => {
    if (request.protocol !== 'http:') {
      callback(plainOnly(remote, request.protocol), null)
      return
    }
    connect(remote, options).then(
      (socket) => callback(null, socket),
      (error: Error) => callback(error, null),
    )
  }
}

function plainOnly(remote: Address, protocol: string): VsockError {
  return new VsockError({
    code: 'ENOTSUP',
    op: 'connect',
    remote,
    what: `the connector speaks http:, not ${protocol}`,
    next: 'Use an http: origin, or wrap the socket of connect() with tls.connect({ socket }).',
  })
}
