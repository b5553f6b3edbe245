import { show } from '@upcall/foundation/show'
import { copyOf, getI32, getU32, putU32 } from './bytes.js'
import { checkArch, integer, load } from './check.js'
import { type Arch, MAX_REPLY_LOAD, MESSAGE_SIZE, MessageType, messageTypeName, REPLY_HEADER_SIZE } from './constants.js'
import { WireError } from './error.js'
import { blankMessage, loadApart, messageHeader, putHeader, readHeader, targetMessage } from './header.js'

/**
 * The reply to a CPU request. `result`: 0, a negative errno, or +1 (the CPU was in that state already, and the step changed nothing).
 * The index is there only if the message declares it; the kernels do so on success.
 */
export interface CpuReply {
  type: 'ADD_CPU' | 'DEL_CPU'
  result: number
  /** x86_64: on success, the number of CPUs acted on. */
  apicIdIndex?: number | undefined
  /** aarch64: the number of CPUs online afterwards. */
  cpuId?: number | undefined
}

/** The reply to an MMIO or PCI request: 0 or a negative errno. */
export interface DeviceReply {
  type: 'ADD_MMIO' | 'DEL_MMIO' | 'ADD_PCI' | 'DEL_PCI'
  result: number
}

/** The Connect message, read as a reply; with result −1 the answer to a CONNECT that was sent as a request. */
export interface ConnectReply {
  type: 'CONNECT'
  result: number
}

/** The reply of a type that has no codec (3, 4 and above 8). `load` has what the message declares, at most 1004 bytes. */
export interface RawReply {
  type: 'RAW'
  messageType: number
  result: number
  load: Uint8Array
}

/** One reply of the device manager. */
export type Reply = CpuReply | DeviceReply | ConnectReply | RawReply

const RESULT_AT = 16
const INDEX_AT = REPLY_HEADER_SIZE
const INDEX_SIZE = 4

/**
 * Writes a reply as one message of 1024 bytes, zero-padded.
 *
 * @param into - See {@link encodeRequest}.
 * @throws {@link WireError} `ARGUMENT` or, for `into`, `LENGTH`; `into` is then left as it was.
 */
export function encodeReply(reply: Reply, arch: Arch, into?: Uint8Array): Uint8Array {
  checkReply(reply, arch)
  const apart = withLoadApart(reply, into)
  const bytes = blankMessage(into)
  putReply(bytes, apart)
  return bytes
}

/**
 * Writes a reply over an earlier one, as the kernel does: only the header, the result and the declared load. The bytes after them stay.
 * For a program that plays the guest.
 */
export function overwriteReply(reply: Reply, arch: Arch, into: Uint8Array): Uint8Array {
  checkReply(reply, arch)
  const bytes = targetMessage(into)
  putReply(bytes, withLoadApart(reply, into))
  return bytes
}

/** How many bytes of a reply have a meaning: header, result and declared load, at most the whole message. */
export function declaredLength(bytes: Uint8Array): number {
  return Math.min(REPLY_HEADER_SIZE + readHeader(bytes).size, MESSAGE_SIZE)
}

/**
 * Reads one reply, and of it only what the message declares: the kernel never clears its reply buffer, so bytes of earlier replies
 * follow.
 *
 * @param bytes - Exactly one message, 1024 bytes.
 * @throws {@link WireError} `LENGTH`, `MAGIC`, or `SIZE` if the type cannot have a load of the declared size.
 */
export function decodeReply(bytes: Uint8Array, arch: Arch): Reply {
  checkArch(arch)
  const { messageType, size } = messageHeader(bytes)
  const result = getI32(bytes, RESULT_AT)
  const type = messageTypeName(messageType)
  switch (type) {
    case 'ADD_CPU':
    case 'DEL_CPU': {
      if (size === 0) return { type, result }
      if (size !== INDEX_SIZE) throw wrongSize(type, `0 or ${INDEX_SIZE}`, size)
      const index = getU32(bytes, INDEX_AT)
      return arch === 'x86_64' ? { type, result, apicIdIndex: index } : { type, result, cpuId: index }
    }
    case 'CONNECT':
    case 'ADD_MMIO':
    case 'DEL_MMIO':
    case 'ADD_PCI':
    case 'DEL_PCI':
      if (size !== 0) throw wrongSize(type, '0', size)
      return { type, result }
    default:
      if (size > MAX_REPLY_LOAD) throw wrongSize(`type ${messageType}`, `at most ${MAX_REPLY_LOAD}`, size)
      return { type: 'RAW', messageType, result, load: copyOf(bytes, REPLY_HEADER_SIZE, REPLY_HEADER_SIZE + size) }
  }
}

function wrongSize(type: string, allowed: string, size: number): WireError {
  return new WireError('SIZE', 'msg_size', `a reply to ${type} has a load of ${allowed} bytes, but this one declares ${size}`)
}

function withLoadApart(reply: Reply, into: Uint8Array | undefined): Reply {
  if (reply.type !== 'RAW') return reply
  const { type, messageType, result, load } = reply
  return { type, messageType, result, load: loadApart(load, into) }
}

function putReply(bytes: Uint8Array, reply: Reply): void {
  if (reply.type === 'RAW') {
    putHeader(bytes, reply.messageType, reply.load.length)
    bytes.set(reply.load, REPLY_HEADER_SIZE)
  } else {
    const index = indexOf(reply)
    putHeader(bytes, MessageType[reply.type], index === undefined ? 0 : INDEX_SIZE)
    if (index !== undefined) putU32(bytes, INDEX_AT, index)
  }
  putU32(bytes, RESULT_AT, reply.result)
}

function indexOf(reply: Exclude<Reply, RawReply>): number | undefined {
  return reply.type === 'ADD_CPU' || reply.type === 'DEL_CPU' ? (reply.apicIdIndex ?? reply.cpuId) : undefined
}

function checkReply(reply: Reply, arch: Arch): void {
  checkArch(arch)
  if (typeof reply !== 'object' || reply === null)
    throw new WireError('ARGUMENT', 'reply', `must be an object, got ${show(reply)}`)
  integer(reply.result, 'result', -0x8000_0000, 0x7fff_ffff)
  switch (reply.type) {
    case 'RAW':
      integer(reply.messageType, 'messageType', 0, 0xffff_ffff)
      load(reply.load, 'load', MAX_REPLY_LOAD)
      return
    case 'ADD_CPU':
    case 'DEL_CPU': {
      const [mine, other] = arch === 'x86_64' ? (['apicIdIndex', 'cpuId'] as const) : (['cpuId', 'apicIdIndex'] as const)
      if (reply[other] !== undefined)
        throw new WireError('ARGUMENT', other, `must be left out: a reply on ${arch} has ${mine} instead`)
      if (reply[mine] !== undefined) integer(reply[mine], mine, 0, 0xffff_ffff)
      return
    }
    case 'CONNECT':
    case 'ADD_MMIO':
    case 'DEL_MMIO':
    case 'ADD_PCI':
    case 'DEL_PCI':
      return
    default:
      throw new WireError(
        'ARGUMENT',
        'type',
        `must be CONNECT, ADD_CPU, DEL_CPU, ADD_MMIO, DEL_MMIO, ADD_PCI, DEL_PCI or RAW, got ${show((reply as { type?: unknown }).type)}`,
      )
  }
}
