import { errnoName, formatOperation, type Operation } from '@upcall/device-manager'
import { type ErrorFields, messageOf } from '@upcall/foundation/error'
import {
  type Arch,
  DEVICE_MANAGER_BYTE,
  decodeReply,
  decodeRequest,
  type Header,
  isWireError,
  MESSAGE_SIZE,
  type MessageTypeName,
  messageTypeName,
  type Reply,
  readHeader,
} from '@upcall/wire'
import type { Piece } from './stream.js'
import { argumentsText, replyTexts, resultText } from './text.js'

/** What a message is: asked by the host, or answered by the guest. */
export type MessageKind = 'request' | 'reply'

/** What is wrong with bytes that cannot be read, as data. `message` is made of the other fields. */
export interface Fault {
  /** A code of `WireError`. */
  code: string
  /** The message that could not be read: `reply ADD_CPU`. */
  op?: string
  /** The header's field. */
  subject?: string
  what: string
  message: string
}

/** A piece of a stream, in a form for JSON. `offset` counts bytes from the beginning of the input. */
export type Decoded = { offset: number } & (
  | { direction: MessageKind; handshake: string }
  /** The byte that chooses the service, as a character if it is one. */
  | { direction: 'request'; service: string | number }
  /** A request, in the form that `batch` takes. */
  | { direction: 'request'; type: MessageTypeName | number; operation: Operation; given?: number }
  | ({ direction: 'reply'; type: MessageTypeName | number; result: number; errnoName?: string; given?: number } & ReplyLoad)
  | { error: Fault }
)

/** What a reply carries besides its result. */
export interface ReplyLoad {
  apicIdIndex?: number
  cpuId?: number
  load?: string
}

export interface ReaderOptions {
  /** Default: each message tells by its type and size; where it does not, as the one before it. */
  direction?: MessageKind | undefined
  /** Default: each CPU request tells by its size; until one does, `fallbackArch`. */
  arch?: Arch | undefined
  fallbackArch: Arch
}

/** Makes sense of the pieces of one input. What a message does not tell of itself it takes from those before it. */
export class MessageReader {
  readonly #fixed: ReaderOptions
  #direction: MessageKind = 'request'
  #arch: Arch

  constructor(options: ReaderOptions) {
    this.#fixed = options
    this.#arch = options.arch ?? options.fallbackArch
  }

  read(piece: Piece): Decoded {
    const { offset } = piece
    switch (piece.kind) {
      case 'handshake':
        this.#direction = /^c/i.test(piece.text) ? 'request' : 'reply'
        return { offset, direction: this.#direction, handshake: piece.text }
      case 'service':
        this.#direction = 'request'
        return { offset, direction: 'request', service: piece.byte === DEVICE_MANAGER_BYTE ? 'd' : piece.byte }
      case 'message':
        return this.#message(piece.bytes, offset, piece.given)
      case 'garbage':
        return failure(offset, 'MAGIC', `${piece.length} bytes belong to no message: no magic begins in them`)
      case 'cut':
        return failure(offset, 'LENGTH', `the input ends after ${piece.length} of the ${MESSAGE_SIZE} bytes of a message`)
    }
  }

  #message(bytes: Uint8Array, offset: number, given: number): Decoded {
    const header = readHeader(bytes)
    this.#direction = this.#fixed.direction ?? kindOf(header, bytes) ?? this.#direction
    if (this.#direction === 'request') this.#arch = this.#fixed.arch ?? archOf(bytes) ?? this.#arch
    return decodeMessage(bytes, { direction: this.#direction, arch: this.#arch, offset, given })
  }
}

export interface MessageAbout {
  direction: MessageKind
  arch: Arch
  /** Where it begins. */
  offset: number
  /** How many of its bytes were there; the others are zeros. Default: all. */
  given?: number
}

/** Reads one message of 1024 bytes of which the direction and the architecture are known. */
export function decodeMessage(bytes: Uint8Array, { direction, arch, offset, given = MESSAGE_SIZE }: MessageAbout): Decoded {
  const { messageType } = readHeader(bytes)
  const short = given < MESSAGE_SIZE ? { given } : {}
  const type = messageTypeName(messageType) ?? messageType
  try {
    if (direction === 'reply') return { offset, direction, type, ...replyFields(decodeReply(bytes, arch)), ...short }
    return { offset, direction, type, operation: formatOperation(decodeRequest(bytes, arch)), ...short }
  } catch (error) {
    if (!isWireError(error)) throw error
    const { code, subject, what } = error
    return { offset, error: faultOf({ code, op: `${direction} ${type}`, subject, what }) }
  }
}

const X86_CPU_SIZE = 258
const ARM_CPU_SIZE = 1

/** The sizes that the two directions declare differ for every type that has a codec. */
function kindOf({ messageType, size }: Header, bytes: Uint8Array): MessageKind | undefined {
  switch (messageTypeName(messageType)) {
    case 'CONNECT':
      return 'reply'
    case 'ADD_CPU':
    case 'DEL_CPU':
      return size === X86_CPU_SIZE || size === ARM_CPU_SIZE ? 'request' : size === 0 || size === 4 ? 'reply' : undefined
    case 'ADD_MMIO':
    case 'DEL_MMIO':
    case 'ADD_PCI':
    case 'DEL_PCI':
      return size === 0 ? 'reply' : 'request'
    default:
      // No load, and yet something stands where a reply has its result.
      return size === 0 && bytes.subarray(16, 20).some((byte) => byte !== 0) ? 'reply' : undefined
  }
}

/** The architecture that a CPU request tells by its size; undefined for all other messages. */
export function archOf(request: Uint8Array): Arch | undefined {
  const { messageType, size } = readHeader(request)
  const type = messageTypeName(messageType)
  if (type !== 'ADD_CPU' && type !== 'DEL_CPU') return undefined
  return size === X86_CPU_SIZE ? 'x86_64' : size === ARM_CPU_SIZE ? 'aarch64' : undefined
}

function replyFields(reply: Reply): { result: number; errnoName?: string } & ReplyLoad {
  const { result } = reply
  const named = { result, ...(result !== 0 && { errnoName: errnoName(result) }) }
  if (reply.type === 'RAW') return { ...named, ...(reply.load.length > 0 && { load: Buffer.from(reply.load).toString('hex') }) }
  const { apicIdIndex, cpuId } = reply as ReplyLoad
  return { ...named, ...(apicIdIndex !== undefined && { apicIdIndex }), ...(cpuId !== undefined && { cpuId }) }
}

function failure(offset: number, code: string, what: string): Decoded {
  return { offset, error: faultOf({ code, subject: '', what }) }
}

/** An error as data. */
export function faultOf({ code, op, subject, what }: ErrorFields): Fault {
  return { code, ...(op && { op }), ...(subject !== '' && { subject }), what, message: messageOf({ op, subject, what }) }
}

/** One line for people, without direction and offset: `ADD_MMIO 0xd0000000+0x1000 irq 5`. */
export function titleOf(decoded: Decoded): string {
  if ('error' in decoded) return decoded.error.message // prints
  if ('handshake' in decoded) return decoded.handshake
  if ('service' in decoded) return decoded.service === 'd' ? "service 'd', the device manager" : `service byte ${decoded.service}`
  const type = typeof decoded.type === 'number' ? `type ${decoded.type}` : decoded.type
  if (decoded.direction === 'request') return `${type.padEnd(8)} ${argumentsText(decoded.operation)}`.trimEnd()
  if (decoded.type === 'CONNECT' && decoded.result === 0) return 'CONNECT  the greeting'
  return `${type.padEnd(8)} ${[resultText(decoded.result), ...replyTexts(decoded)].join(', ')}`
}
