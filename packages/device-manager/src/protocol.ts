import type { Service } from '@upcall/client'
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
import { checkObject, show } from './check.js'
import { describeRequest } from './operation.js'

/** How long replies may take, in milliseconds from the write. */
export interface ReplyTimeouts {
  /** CPU requests. Default 30,000: a 6.1 guest takes 12.2 s to say that no vCPU answers for an id (protocol, fact 10). */
  cpuMs?: number | undefined
  /** Everything else. Default 10,000. */
  otherMs?: number | undefined
}

export interface ProtocolOptions<A extends Arch> {
  /** The guest's architecture. The wire does not tell, and a wrong one is understood as something else (protocol, fact 11). */
  arch: A
  replyTimeouts?: ReplyTimeouts | undefined
}

/**
 * Service 'd' as a value for `UpcallClient`. This is how the architecture reaches the codec.
 *
 * @throws TypeError for an architecture that is none of the guest's; RangeError for a time that is not finite and above 0.
 */
export function deviceManagerProtocol<A extends Arch>(options: ProtocolOptions<A>): Service<Request<A>, Reply> {
  checkObject('options', options)
  const { arch, replyTimeouts = {} } = options
  // Not when the first request is encoded: by then a resize would have started vCPUs.
  if (arch !== 'x86_64' && arch !== 'aarch64')
    throw new TypeError(`arch: must be 'x86_64' or 'aarch64', the guest's, got ${show(arch)}`)
  checkObject('replyTimeouts', replyTimeouts)
  const cpuMs = replyTimeout('cpuMs', replyTimeouts.cpuMs ?? 30_000)
  const otherMs = replyTimeout('otherMs', replyTimeouts.otherMs ?? 10_000)
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
    // A PCI success leaves `ret` as the last failure on this connection left it (protocol, fact 3).
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

/** No reply is waited for without end: a guest that hangs would keep all requests that follow. */
function replyTimeout(name: string, ms: number): number {
  if (typeof ms !== 'number' || !(ms > 0 && ms < Number.POSITIVE_INFINITY))
    throw new RangeError(`replyTimeouts.${name}: must be a finite number of milliseconds above 0, got ${show(ms)}`)
  return ms
}

function messageTypeOf(message: Request | Reply): number {
  return message.type === 'RAW' ? message.messageType : MessageType[message.type]
}

function typeName(messageType: number): string {
  return messageTypeName(messageType) ?? `type ${messageType}`
}
