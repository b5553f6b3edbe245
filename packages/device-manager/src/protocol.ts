import type { Service } from '@upcall/client'
import { checkObject, finiteDuration } from '@upcall/foundation/check'
import {
  type Arch,
  checkConnect,
  DEVICE_MANAGER_BYTE,
  decodeReply,
  encodeRequest,
  MESSAGE_SIZE,
  MessageType,
  messageTypeName,
  type Reply,
  type Request,
  WireError,
} from '@upcall/wire'
import { checkArch } from './arch.js'
import { describeRequest } from './operation.js'

/** How long replies may take, in milliseconds after the write. */
export interface ReplyTimeouts {
  /** CPU requests. Default 30,000: a 6.1 guest takes 12.2 s to answer that an id has no vCPU (docs/protocol.md, fact 10). */
  cpuMs?: number | undefined
  /** All other requests. Default 10,000. */
  otherMs?: number | undefined
}

export interface ProtocolOptions<A extends Arch> {
  /** The guest's architecture. The protocol does not tell it, and a guest misreads the requests of another one (docs/protocol.md, fact 11). */
  arch: A
  replyTimeouts?: ReplyTimeouts | undefined
}

/**
 * Service 'd' as a value for `UpcallClient`. This is how the architecture reaches the codec.
 *
 * @throws RangeError for an unknown architecture, or for a time that is not finite and above 0.
 */
export function deviceManagerProtocol<A extends Arch>(options: ProtocolOptions<A>): Service<Request<A>, Reply> {
  checkObject('options', options)
  const { arch, replyTimeouts = {} } = options
  // Checked here and not when the first request is encoded: a resize would have started vCPUs by then.
  checkArch(arch)
  checkObject('replyTimeouts', replyTimeouts)
  const cpuMs = replyTimeout('cpuMs', replyTimeouts.cpuMs, 30_000)
  const otherMs = replyTimeout('otherMs', replyTimeouts.otherMs, 10_000)
  return {
    byte: DEVICE_MANAGER_BYTE,
    messageSize: MESSAGE_SIZE,
    checkGreeting: checkConnect,
    encode: (request, into) => encodeRequest(request, arch, into),
    decode(frame, request) {
      const reply = decodeReply(frame, arch)
      const [asked, answered] = [messageTypeOf(request), messageTypeOf(reply)]
      if (asked !== answered) throw new WireError('TYPE', 'msg_type', `${typeName(answered)} does not answer ${typeName(asked)}`)
      return reply
    },
    failed: (reply) => reply.result !== 0,
    // A PCI success repeats the errno of the last failure on its connection (docs/protocol.md, fact 3).
    needsCleanChannel(request) {
      const type = messageTypeOf(request)
      return type === MessageType.ADD_PCI || type === MessageType.DEL_PCI
    },
    replyTimeoutMs(request) {
      const type = messageTypeOf(request)
      return type === MessageType.ADD_CPU || type === MessageType.DEL_CPU ? cpuMs : otherMs
    },
    describe: describeRequest,
  }
}

/** Every wait for a reply ends: a guest that hangs would block all later requests. */
function replyTimeout(name: string, ms: number | undefined, fallback: number): number {
  return finiteDuration(`replyTimeouts.${name}`, ms, fallback)
}

function messageTypeOf(message: Request | Reply): number {
  return message.type === 'RAW' ? message.messageType : MessageType[message.type]
}

function typeName(messageType: number): string {
  return messageTypeName(messageType) ?? `type ${messageType}`
}
