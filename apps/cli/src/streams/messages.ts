import { Duplex } from 'node:stream'
import { errnoOf, FieldError } from '@upcall/foundation/error'
import { ByteLines, LineTooLongError } from '@upcall/foundation/lines'
import {
  type ConnectOptions,
  connectSeqpacket,
  dialEndpoint,
  type Endpoint,
  type EndpointListener,
  formatAddress,
  type Incoming,
  type InheritedSocket,
  type ListenSeqpacketOptions,
  listenSeqpacket,
  type MessageSocket,
  type SeqpacketAddress,
  type SeqpacketSocket,
} from '@upcall/vsock'

/** A connection of a listener for messages. */
export interface IncomingMessages extends Incoming {
  readonly messages: SeqpacketSocket
}

/** Whether an address is one for messages (`+seq`). */
export function isForMessages(endpoint: object): endpoint is SeqpacketAddress {
  return 'type' in endpoint && endpoint.type === 'seqpacket'
}

/** A connection as `converse` takes it. */
export type LineStream = ReturnType<Incoming['accept']>

/** `dialEndpoint`, for message sockets, too, as lines. Throws as that does. */
export async function dialLines(endpoint: Endpoint | SeqpacketAddress, options: ConnectOptions): Promise<LineStream> {
  if (!isForMessages(endpoint)) return dialEndpoint(endpoint, options)
  const { signal, timeoutMs, retry, vsock } = options
  const socket = await connectSeqpacket(endpoint, { signal, timeoutMs, retry, vsock })
  return { socket: linesOfMessages(socket), halfClose: true }
}

/** `listenEndpoint` for message sockets. Throws as `listenSeqpacket` does. */
export async function listenMessages(
  where: SeqpacketAddress | InheritedSocket,
  options: Pick<ListenSeqpacketOptions, 'mode' | 'vsock'>,
  onIncoming: (incoming: IncomingMessages) => void,
): Promise<EndpointListener> {
  const server = await listenSeqpacket(where, options)
  server.on('connection', (messages) => {
    const gone = new AbortController()
    void messages.closed.then(() => gone.abort(new Error('the peer has closed the connection')))
    onIncoming({
      messages,
      remote: formatAddress(messages.remote ?? server.address),
      signal: gone.signal,
      accept: () => ({ socket: linesOfMessages(messages), halfClose: true }),
      refuse: () => messages.destroy(),
    })
  })
  const stop = () => server.close()
  return { address: server.address, stop, close: stop }
}

/**
 * A message socket as a stream of lines: a message is a line without its newline, each way. An empty line is left out, as no socket sends an empty message.
 * The stream owns the socket.
 */
export function linesOfMessages(socket: MessageSocket): Duplex {
  const lines = new ByteLines({ max: socket.maxMessageBytes })
  const send = async (line: Uint8Array) => {
    if (line.length > 0) await socket.send(line)
  }
  const stream: Duplex = new Duplex({
    read() {
      socket.receive().then(
        (message) => stream.push(message === undefined ? null : Buffer.concat([message.data, NEWLINE])),
        (error) => stream.destroy(error),
      )
    },
    write(chunk: Buffer, _encoding, done) {
      ;(async () => {
        for (const line of lines.push(chunk)) await send(line)
      })().then(
        () => done(),
        (error) => done(error instanceof LineTooLongError ? new LongLineError(error.max) : error),
      )
    },
    final(done) {
      send(lines.take()).then(
        () => {
          socket.end()
          done()
        },
        (error) => {
          // What the peer has said is read first.
          if (errnoOf(error) !== 'EPIPE' || stream.readableEnded) return done(error)
          stream.once('end', () => done(error))
        },
      )
    },
    destroy(error, done) {
      socket.destroy(error ?? undefined)
      void socket.closed.then(() => done(error))
    },
  })
  void socket.closed.then(() => {
    if (socket.errored) stream.destroy(socket.errored)
    else if (stream.readableEnded) stream.destroy()
    else stream.once('end', () => stream.destroy())
  })
  return stream
}

const NEWLINE = Buffer.from('\n')

/** A line that does not fit a message. */
class LongLineError extends FieldError {
  override readonly name = 'LongLineError'

  constructor(max: number) {
    super({ code: 'EMSGSIZE', subject: 'stdin', what: `a line is longer than ${max} bytes, as much as a message may have` })
  }
}
