/**
 * Service 'd', the device manager: the VMM's side.
 *
 * @packageDocumentation
 */

export { type Bdf, formatBdf, parseBdf } from './bdf.js'
export { errnoName } from './errno.js'
export { GuestError, guestErrorOf, isGuestError } from './guest-error.js'
export { type CpuOptions, type Cpus, DeviceManager, type DeviceManagerOptions, type MmioWindow } from './manager.js'
export { describeRequest, formatOperation, type Operation, parseLoad, parseOperation, parseU64 } from './operation.js'
export { deviceManagerProtocol, type ProtocolOptions, type ReplyTimeouts } from './protocol.js'
export type { ResizeOptions } from './resize.js'
export {
  isResizeError,
  type PresentOf,
  ResizeError,
  type ResizeErrorFields,
  type ResizeProgress,
  type ResizeResult,
} from './resize-error.js'
