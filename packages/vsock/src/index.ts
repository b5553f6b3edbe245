/**
 * vsock for Node: connect to a guest through its VMM's Unix socket (hybrid vsock), a plain Unix socket or native AF_VSOCK, listen
 * on each of them, and play the VMM's end of hybrid vsock.
 *
 * @packageDocumentation
 */

export type { Clock } from '@upcall/foundation/clock'
export type { Message, MessageSocket, ReceiveOptions, SendOptions } from '@upcall/foundation/message-socket'
export { keepReadable } from '@upcall/foundation/streams'
export type { ServerEvents } from './accepting-server.js'
export type { AcceptOptions } from './acceptor.js'
export type { BindOptions } from './bind.js'
export { type BindServerOptions, type BoundServer, bindServer } from './bind-server.js'
export { connect } from './connect.js'
export { type CreateSocketOptions, createSocket } from './create-socket.js'
export {
  type BindDatagramOptions,
  bindDatagram,
  type DatagramInfo,
  type VsockDatagramEvents,
  VsockDatagramSocket,
} from './datagram.js'
export { watchPeer } from './ends.js'
export * from './entry/address.js'
export { isVsockError, VsockError, type VsockErrorCode, type VsockErrorInit, type VsockOperation } from './errors.js'
export {
  type DialledStream,
  dialEndpoint,
  type Endpoint,
  type EndpointInit,
  type EndpointListener,
  type ForwardEnd,
  type ForwardedConnection,
  Forwarder,
  type ForwarderEvents,
  type ForwarderTraffic,
  type ForwardOptions,
  type ForwardTarget,
  formatEndpoint,
  forward,
  type Incoming,
  isTcpError,
  type ListenEndpointOptions,
  listenEndpoint,
  parseEndpoint,
  type TcpAddress,
  TcpError,
} from './forward/index.js'
export * from './http/index.js'
export {
  type HybridProfile,
  type HybridServer,
  type HybridServerEvents,
  hybridProfiles,
  type ListenHybridOptions,
  listenHybrid,
} from './hybrid.js'
export type { Refusal, Route, RouteContext } from './hybrid-handshake.js'
export type { SeqpacketRoute } from './hybrid-messages.js'
export type { InheritedSocket } from './inherited.js'
export { type ListenOptions, listen, type VsockServer, type VsockServerEvents } from './listen.js'
export { AddonError, type Attempt, addonPath } from './native/loader.js'
export type { VsockConnectOptions, VsockOptions } from './native/options.js'
export { localCid } from './native/vsock.js'
export * from './notify/index.js'
export { type Passed, type PassOptions, passDescriptor } from './passfd/pass.js'
export type { ConnectOptions, Retry, RetryOptions } from './plan.js'
export {
  type Abilities,
  type Broken,
  type Carried,
  type RelayEnd,
  type Relayed,
  type RelayOptions,
  relay,
  type Side,
  type SocketEndOptions,
  socketEnd,
} from './relay/index.js'
export * from './seqpacket/index.js'
export { VsockSocket, type VsockSocketInit } from './socket.js'
export { type ActivationSocket, type ListenFdsOptions, listenFds } from './systemd/activation.js'
export { type NotifyOptions, notifySystemd } from './systemd/notify.js'
