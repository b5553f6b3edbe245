import type { Service } from '@upcall/client'

/** A request of the toy service: a number that no other request has. */
export interface ToyRequest {
  readonly token: number
  /** Whether it must not follow a failed reply on its connection. */
  readonly clean: boolean
}

export interface ToyReply {
  /** The token of the request that the guest answered. The wire of a real service has nothing of the kind, so nothing checks it. */
  readonly token: number
  readonly failed: boolean
}

export const TOY_MESSAGE_SIZE = 8
const TOY_REPLY_TIMEOUT_MS = 1_000

const [GREETING, REQUEST, REPLY] = [0x47, 0x51, 0x52]

/** The smallest service that has everything a session has to deal with: tokens show where a reply goes. */
export const toyService: Service<ToyRequest, ToyReply> = {
  byte: 0x74,
  messageSize: TOY_MESSAGE_SIZE,
  checkGreeting(frame) {
    if (frame[0] !== GREETING) throw new Error('not the greeting')
  },
  encode({ token }, into) {
    return message(REQUEST, token, 0, into)
  },
  decode(frame) {
    if (frame[0] !== REPLY) throw new Error('not a reply')
    return { token: tokenOf(frame), failed: frame[5] === 1 }
  },
  failed: ({ failed }) => failed,
  needsCleanChannel: ({ clean }) => clean,
  replyTimeoutMs: () => TOY_REPLY_TIMEOUT_MS,
}

export const toyGreeting = () => message(GREETING, 0, 0)
export const toyReply = ({ token, failed }: ToyReply) => message(REPLY, token, failed ? 1 : 0)
export const isToyRequest = (bytes: Uint8Array) => bytes.length === TOY_MESSAGE_SIZE && bytes[0] === REQUEST
export const tokenOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(1)

function message(kind: number, token: number, flag: number, into: Uint8Array = new Uint8Array(TOY_MESSAGE_SIZE)): Uint8Array {
  into[0] = kind
  new DataView(into.buffer, into.byteOffset).setUint32(1, token)
  into[5] = flag
  return into
}

/** A request of the toy service as a session takes it; `deadline` is a time. */
export function toyTicket({ token, clean }: ToyRequest, deadline: number) {
  const request: ToyRequest = { token, clean }
  return {
    id: token,
    request,
    bytes: toyService.encode(request, new Uint8Array(TOY_MESSAGE_SIZE)),
    op: `request ${token}`,
    needsClean: clean,
    replyTimeoutMs: toyService.replyTimeoutMs(request),
    deadline,
  }
}
