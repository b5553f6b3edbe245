/**
 * Bytes to messages and back. Pure: no platform API, and no state outside {@link FrameDecoder}.
 *
 * @packageDocumentation
 */

export {
  type Arch,
  DEFAULT_APIC_VERSION,
  DEVICE_MANAGER_BYTE,
  HEADER_SIZE,
  MAGIC_VERSION,
  MAX_REPLY_LOAD,
  MAX_REQUEST_LOAD,
  MESSAGE_SIZE,
  MessageType,
  type MessageTypeName,
  messageTypeName,
  REPLY_HEADER_SIZE,
  UPCALL_PORT,
} from './constants.js'
export { packDevfn, unpackDevfn } from './devfn.js'
export { isWireError, WireError, type WireErrorCode } from './error.js'
export { FrameDecoder } from './frames.js'
export { checkConnect, encodeConnect, type Header, readHeader } from './header.js'
export {
  type ConnectReply,
  type CpuReply,
  type DeviceReply,
  declaredLength,
  decodeReply,
  encodeReply,
  overwriteReply,
  type RawReply,
  type Reply,
} from './reply.js'
export {
  type ArmCpuRequest,
  type CpuRequest,
  decodeRequest,
  encodeRequest,
  type MmioRequest,
  type PciRequest,
  type RawRequest,
  type Request,
  type X86CpuRequest,
} from './request.js'
