/**
 * vsock for Node: connect to a guest through its VMM's Unix socket (hybrid vsock) or a plain Unix socket, listen for what a guest
 * connects to, and play the VMM's end of hybrid vsock.
 *
 * @packageDocumentation
 */
export {
  type Address,
  AddressError,
  Cid,
  formatAddress,
  type HvsockAddress,
  type ParseAddressOptions,
  PORT_ANY,
  parseAddress,
  UNIX_PATH_MAX,
  type UnixAddress,
  type VsockAddress,
} from './address.js'
export type { BindOptions } from './bind.js'
export type { Clock } from './clock.js'
export { type ConnectOptions, connect, type RetryOptions } from './connect.js'
export { isVsockError, VsockError, type VsockErrorCode, type VsockErrorInit, type VsockOperation } from './errors.js'
export { type ConnectorCallback, type ConnectorOptions, type CreateConnection, connector, createConnection } from './http.js'
export {
  type HybridServer,
  type HybridServerEvents,
  type ListenHybridOptions,
  listenHybrid,
  type Refusal,
  type RouteContext,
} from './hybrid.js'
export { type ListenOptions, listen, type VsockServer, type VsockServerEvents } from './listen.js'
export { VsockSocket, type VsockSocketInit } from './socket.js'
