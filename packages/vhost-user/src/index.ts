export type { ConnectionHandler, IncomingConnection } from './attachment.js'
export type { Clock } from './clock.js'
export { isVsockDeviceError, VsockDeviceError, type VsockDeviceErrorCode } from './errors.js'
export { DeviceError, type DeviceErrorCode } from './machine/errors.js'
export { AddonError } from './native/loader.js'
export { VsockStream } from './stream.js'
export {
  createVsockDevice,
  type DeviceState,
  type StopReason,
  VhostUserVsock,
  type VhostUserVsockEvents,
  type VhostUserVsockOptions,
} from './vhost-user-vsock.js'
