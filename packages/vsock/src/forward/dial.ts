import type { Socket } from 'node:net'
import { type ConnectOptions, connect } from '../connect.js'
import { type EndpointInit, toEndpoint } from './endpoint.js'
import { dialTcp } from './tcp.js'

/** A connection, and whether its EOF in one direction leaves the other one open. `socketEnd` takes both. */
export interface DialledStream {
  readonly socket: Socket
  readonly halfClose: boolean
}

/**
 * `connect`, for TCP, too. Resolves after any handshake. Both directions end by themselves: the peer's end does not end the socket.
 *
 * @throws {AddressError}, {RangeError} or {TypeError} for an argument that is wrong; {VsockError} as `connect` does; {TcpError}.
 */
export async function dialEndpoint(endpoint: EndpointInit, options: ConnectOptions = {}): Promise<DialledStream> {
  const remote = toEndpoint(endpoint)
  if (remote.transport === 'tcp') return { socket: await dialTcp(remote, options), halfClose: true }
  const socket = await connect(remote, options)
  return { socket, halfClose: socket.halfClose }
}
