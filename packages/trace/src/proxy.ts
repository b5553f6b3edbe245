import type { Duplex } from 'node:stream'
import {
  dialEndpoint,
  type Endpoint,
  type EndpointInit,
  type Forwarder,
  formatEndpoint,
  forward,
  parseEndpoint,
} from '@upcall/vsock'
import { Conversation, type ConversationEvent, type ConversationOptions } from './conversation/conversation.js'
import type { Direction } from './conversation/framer.js'

export interface ProxyOptions extends Pick<ConversationOptions, 'arch' | 'fallbackArch' | 'raw'> {
  /** Called for what each connection says; `conn` is the `id` of the forwarder's connection. It must not throw. */
  onEvent: (event: ConversationEvent & { readonly conn: number }) => void
  /** For each connecting to the target, in milliseconds. Default 5000. */
  timeoutMs?: number | undefined
  /** Closes the proxy. */
  signal?: AbortSignal | undefined
}

/**
 * Stands between clients and a guest: listens, connects to the target for each connection, and passes on every byte, EOF and
 * backpressure as `forward` of `@upcall/vsock` does. Where both addresses are `hvsock://`, or both `unix:`, the handshake passes through
 * like all other bytes, for any port. A client of `hvsock://` in front of `unix:` is answered as a VMM answers it.
 *
 * @throws What `forward` throws where it cannot listen.
 */
export function proxy(listen: EndpointInit, target: EndpointInit, options: ProxyOptions): Promise<Forwarder> {
  const { onEvent, timeoutMs, signal, ...conversation } = options
  const [from, to] = [endpointOf(listen), endpointOf(target)]
  const through = from.transport === 'hvsock' && to.transport === 'hvsock'
  const destination = through ? plain(to) : to
  return forward(
    through ? plain(from) : from,
    async ({ id, signal: left }) => {
      const { socket } = await dialEndpoint(destination, { signal: left, timeoutMs })
      tap(socket, new Conversation(conversation), (event) => onEvent({ ...event, conn: id }))
      return socket
    },
    { asVmm: from.transport === 'hvsock' && !through, timeoutMs, signal },
  )
}

function endpointOf(given: EndpointInit): Endpoint {
  return parseEndpoint(typeof given === 'string' ? given : formatEndpoint(given as Endpoint), { defaultPort: 219 })
}

/** The socket of the VMM without the handshake, which passes through. */
function plain(endpoint: Endpoint): Endpoint {
  return endpoint.transport === 'hvsock' ? parseEndpoint(`unix:${endpoint.path}`) : endpoint
}

type Inner = Duplex & {
  push(chunk: unknown, encoding?: BufferEncoding): boolean
  _write(chunk: unknown, encoding: BufferEncoding, done: (error?: Error | null) => void): void
  _writev?: (chunks: { chunk: unknown }[], done: (error?: Error | null) => void) => void
}

/** Sees what the stream receives and is given to send, and changes neither. A 'data' listener would make it flow before its reader is there. */
function tap(stream: Duplex, conversation: Conversation, onEvent: (event: ConversationEvent) => void): void {
  const inner = stream as Inner
  const { push, _write, _writev } = inner
  const see = (direction: Direction, chunk: unknown) => {
    if (chunk instanceof Uint8Array && chunk.length > 0)
      for (const event of conversation.feed(direction, chunk, performance.now())) onEvent(event)
  }
  const end = (direction: Direction) => {
    for (const event of conversation.end(direction, performance.now())) onEvent(event)
  }
  // What came with the reply to CONNECT is there already.
  const early: unknown = stream.readableLength > 0 ? stream.read() : null
  if (early !== null) {
    see('to-host', early)
    stream.unshift(early)
  }
  inner.push = (chunk, encoding) => {
    if (chunk === null) end('to-host')
    else see('to-host', chunk)
    return push.call(stream, chunk, encoding)
  }
  inner._write = (chunk, encoding, done) => {
    see('to-guest', chunk)
    _write.call(stream, chunk, encoding, done)
  }
  if (_writev)
    inner._writev = (chunks, done) => {
      for (const { chunk } of chunks) see('to-guest', chunk)
      _writev.call(stream, chunks, done)
    }
  stream.once('finish', () => end('to-guest'))
  stream.once('close', () => {
    end('to-guest')
    end('to-host')
  })
}
