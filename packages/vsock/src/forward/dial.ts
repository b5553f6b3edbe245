import type { Socket } from 'node:net'
import { connect } from '../connect.js'
import type { ConnectOptions } from '../plan.js'
import { type EndpointInit, toEndpoint } from './endpoint.js'
import { dialTcp } from './tcp.js'

/** A connection, and whether its EOF in one direction leaves the other one open. `socketEnd` takes both. */
export interface DialledStream {
  readonly socket: Socket
  readonly halfClose: boolean
}

/**
 * `connect`, for TCP, too, with `allowHalfOpen: true`. Resolves after any handshake.
 *
 * @throws {AddressError}, {RangeError} or {TypeError} for an argument that is wrong; {VsockError} as `connect` does; {TcpError}.
 */
export async function dialEndpoint(
  endpoint: EndpointInit,
  options: Omit<ConnectOptions, 'allowHalfOpen'> = {},
): Promise<DialledStream> {
  const remote = toEndpoint(endpoint)
  if (remote.transport === 'tcp') return { socket: await dialTcp(remote, options), halfClose: true }
  const socket = await connect(remote, { ...options, allowHalfOpen: true })
  return { socket, halfClose: socket.halfClose }
}
