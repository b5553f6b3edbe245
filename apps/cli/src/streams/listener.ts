import {
  AddressError,
  type EndpointListener,
  type Incoming,
  isTcpError,
  isVsockError,
  type ListenEndpointOptions,
  listenEndpoint,
  type Refusal,
} from '@upcall/vsock'
import { UsageError } from '../errors.js'
import type { EventLog } from '../events.js'
import type { ListenOn } from './endpoint.js'
import { isForMessages, listenMessages } from './messages.js'

/** @throws UsageError with the reason, where it cannot listen. `source` is where the user wrote the address. */
export async function openListener(
  endpoint: ListenOn,
  source: string,
  options: ListenEndpointOptions,
  onIncoming: (incoming: Incoming) => void,
): Promise<EndpointListener> {
  return open(endpoint, options, onIncoming).catch(cannotListen(source))
}

async function open(
  endpoint: ListenOn,
  options: ListenEndpointOptions,
  onIncoming: (incoming: Incoming) => void,
): Promise<EndpointListener> {
  if (isForMessages(endpoint)) return listenMessages(endpoint, options, onIncoming)
  try {
    return await listenEndpoint(endpoint, options, onIncoming)
  } catch (error) {
    if (!('fd' in endpoint) || !isVsockError(error) || error.code !== 'ESOCKTNOSUPPORT') throw error
    // It may be a message socket. If it is not that either, the first error is told.
    return listenMessages(endpoint, options, onIncoming).catch(() => {
      throw error
    })
  }
}

/** What to do with the error of something that listens on what the user wrote in `source`. */
export function cannotListen(source: string): (error: unknown) => never {
  return (error) => {
    if (isVsockError(error) || error instanceof AddressError || isTcpError(error)) throw UsageError.of(source, error)
    throw error
  }
}

const REFUSALS: Readonly<Record<Refusal['reason'], string>> = {
  'bad-command': 'it did not send CONNECT <port>',
  'no-descriptors': 'it wanted to pass a descriptor, and none is taken here',
  'bad-descriptor': 'the descriptor that it passed is of no use',
  'no-route': 'that port is not served here',
  'route-failed': 'that port cannot be reached',
  timeout: 'the handshake took too long',
  'too-many': 'too many clients wait for their reply',
  'dialer-gone': 'it left before the reply',
}

/** Logs a client that was closed before it was served: the line for a person, `reason` for a program. */
export function logRefusal(log: EventLog, refusal: Refusal): void {
  const { port, reason } = refusal
  const at = port === undefined ? '' : `port ${port}: `
  log.event({ event: 'refused', reason: `${at}${reason}` }, () => refusalText(refusal))
}

/** Why a client was closed before it was served, for a person. */
export function refusalText({ port, reason }: Refusal): string {
  return `a client was closed: ${port === undefined ? '' : `port ${port}: `}${REFUSALS[reason]}`
}
