/**
 * Looks into upcall and vsock: the messages of a conversation with every byte explained, round-trip times, and pcap files that Wireshark reads.
 *
 * @packageDocumentation
 */

export { type ClientEvent, type TraceClientOptions, traceClient } from './client.js'
export { Conversation, type ConversationEvent, type ConversationOptions } from './conversation/conversation.js'
export type { Direction } from './conversation/framer.js'
export { isTraceError, TraceError, type TraceErrorCode } from './error.js'
export { type ExplainAbout, explainMessage, type MessageField } from './explain.js'
export {
  type Decoded,
  decodeMessage,
  type Fault,
  type MessageAbout,
  type MessageKind,
  MessageReader,
  type ReaderOptions,
  type ReplyLoad,
  titleOf,
} from './message.js'
export type { CapturedPacket } from './pcap/captured.js'
export { type CaptureDevicesOptions, captureDevices, type DeviceCapture } from './pcap/devices.js'
export { type OpenPcapOptions, openPcap, type PcapFile } from './pcap/file.js'
export { ConversationPackets, type ConversationPacketsOptions } from './pcap/packets.js'
export { CAPTURE_MAGIC_BYTES, looksLikeCapture, readCapture } from './pcap/read.js'
export {
  decodeVsockPacket,
  encodeVsockPacket,
  LINKTYPE_VSOCK,
  type VsockEnd,
  type VsockOp,
  type VsockPacket,
} from './pcap/vsock-packet.js'
export { PcapWriter, type PcapWriterOptions } from './pcap/writer.js'
export { type ProxyOptions, proxy } from './proxy.js'
export { type Piece, StreamCutter } from './stream.js'
export { argumentsText, replyTexts, resultText } from './text.js'
