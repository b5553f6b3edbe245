export type { Clock } from '@upcall/foundation/clock'
export type { Message, MessageSocket, ReceiveOptions, SendOptions } from '@upcall/foundation/message-socket'
export type { DeviceSnapshot } from './attachment.js'
export type { ConnectionAnswer, ConnectionHandler, IncomingConnection } from './connections.js'
export { isVsockDeviceError, VsockDeviceError, type VsockDeviceErrorCode, type VsockDeviceErrorInit } from './errors.js'
export type { Refusal } from './hub.js'
export type { Recovery } from './lookout.js'
export type { ConnectionSnapshot, ConnectionState } from './machine/connection.js'
export { DeviceError, type DeviceErrorCode } from './machine/errors.js'
export type { SocketType } from './machine/packet.js'
export type { PolicyRefusal, PortRange, RulePeer } from './machine/policy.js'
export type { RefusalReason } from './machine/switch/routes.js'
export type { DeviceCounters, Traffic } from './machine/tally.js'
export type { RingSnapshot } from './machine/vring.js'
export type { VsockMessageStream } from './message-stream.js'
export { AddonError, type Attempt } from './native/loader.js'
export { createVsockNetwork, VsockNetwork, type VsockNetworkEvents, type VsockNetworkOptions } from './network.js'
export type { LinkEnd, NetworkLink } from './network-link.js'
export { type NetworkThread, type NetworkThreadOptions, startNetworkThread, threadNetwork } from './network-thread.js'
export type { DirectionPolicy, PolicyRate, PolicyRule, VsockPolicy } from './policy-options.js'
export type { Callback, VsockStream } from './stream.js'
export {
  createVsockDevice,
  type DeviceState,
  type StopReason,
  VhostUserVsock,
  type VhostUserVsockEvents,
  type VhostUserVsockOptions,
} from './vhost-user-vsock.js'
