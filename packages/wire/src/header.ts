import { show } from '@upcall/foundation/show'
import { copyOf, getU32, putU32 } from './bytes.js'
import { HEADER_SIZE, MAGIC_VERSION, MESSAGE_SIZE, MessageType } from './constants.js'
import { WireError } from './error.js'

// offset 0 magic_version · 4 msg_size · 8 msg_type · 12 msg_flags, all u32
const MAGIC_AT = 0
const SIZE_AT = 4
const TYPE_AT = 8
const FLAGS_AT = 12

/** The first 16 bytes of a message. Nothing is checked. */
export interface Header {
  magic: number
  /** Bytes of load that the message declares. The bytes after them are padding, or left over from an earlier message. */
  size: number
  messageType: number
  /** Reserved, 0. */
  flags: number
}

/**
 * Reads a header without a check, for a guest or a tracer that has to look at a bad one.
 *
 * @throws {@link WireError} `LENGTH` if there are fewer than 16 bytes, `ARGUMENT` if `bytes` is not a Uint8Array.
 */
export function readHeader(bytes: Uint8Array): Header {
  checkBytes(bytes)
  if (bytes.length < HEADER_SIZE) throw new WireError('LENGTH', 'bytes', `a header has ${HEADER_SIZE} bytes, got ${bytes.length}`)
  return {
    magic: getU32(bytes, MAGIC_AT),
    size: getU32(bytes, SIZE_AT),
    messageType: getU32(bytes, TYPE_AT),
    flags: getU32(bytes, FLAGS_AT),
  }
}

export function putHeader(bytes: Uint8Array, messageType: number, size: number): void {
  putU32(bytes, MAGIC_AT, MAGIC_VERSION)
  putU32(bytes, SIZE_AT, size)
  putU32(bytes, TYPE_AT, messageType)
  putU32(bytes, FLAGS_AT, 0)
}

/** The header of one whole message that carries the right magic. Flags are reserved: a later kernel may set them. */
export function messageHeader(bytes: Uint8Array): Header {
  checkLength(bytes)
  const header = readHeader(bytes)
  if (header.magic !== MAGIC_VERSION) {
    throw new WireError(
      'MAGIC',
      'magic_version',
      `0x${hex(header.magic)} is not 0x${hex(MAGIC_VERSION)}: this is not an upcall message`,
    )
  }
  return header
}

/**
 * Checks the Connect message with which a service greets: magic, type 0, size 0, flags 0. The bytes after the header are not read.
 *
 * @throws {@link WireError} that names the wrong field.
 */
export function checkConnect(bytes: Uint8Array): void {
  const { messageType, size, flags } = messageHeader(bytes)
  if (messageType !== MessageType.CONNECT) throw new WireError('TYPE', 'msg_type', `${messageType} is not CONNECT (0)`)
  if (size !== 0) throw new WireError('SIZE', 'msg_size', `a Connect message has no load, but this one declares ${size} bytes`)
  if (flags !== 0) throw new WireError('FLAGS', 'msg_flags', `0x${hex(flags)} is not 0`)
}

/** Writes the Connect message with which a service greets. `into`: see {@link encodeRequest}. */
export function encodeConnect(into?: Uint8Array): Uint8Array {
  const bytes = blankMessage(into)
  putHeader(bytes, MessageType.CONNECT, 0)
  return bytes
}

/** 1024 zero bytes, in the caller's buffer if it gave one. */
export function blankMessage(into: Uint8Array | undefined): Uint8Array {
  if (into === undefined) return new Uint8Array(MESSAGE_SIZE)
  return targetMessage(into).fill(0)
}

/** The first 1024 bytes of the caller's buffer; the buffer itself, so that nothing is allocated, if it has exactly that size. */
export function targetMessage(into: Uint8Array): Uint8Array {
  if (!(into instanceof Uint8Array)) throw new WireError('ARGUMENT', 'into', `must be a Uint8Array, got ${show(into)}`)
  if (into.length < MESSAGE_SIZE)
    throw new WireError('LENGTH', 'into', `a message has ${MESSAGE_SIZE} bytes, but the buffer has only ${into.length}`)
  return into.length === MESSAGE_SIZE ? into : into.subarray(0, MESSAGE_SIZE)
}

/** The load as it is before anything is written. The caller may have put it into the buffer that is written to. */
export function loadApart(load: Uint8Array, into: Uint8Array | undefined): Uint8Array {
  return load.buffer === into?.buffer ? copyOf(load, 0, load.length) : load
}

function checkBytes(bytes: unknown): void {
  if (!(bytes instanceof Uint8Array)) throw new WireError('ARGUMENT', 'bytes', `must be a Uint8Array, got ${show(bytes)}`)
}

function checkLength(bytes: Uint8Array): void {
  checkBytes(bytes)
  if (bytes.length !== MESSAGE_SIZE)
    throw new WireError('LENGTH', 'bytes', `a message has ${MESSAGE_SIZE} bytes, got ${bytes.length}`)
}

function hex(word: number): string {
  return word.toString(16).padStart(8, '0')
}
