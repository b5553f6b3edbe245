import { setLongTimer } from '@upcall/foundation/clock'
import { joinMessages } from '@upcall/foundation/join-messages'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import { okReply, parseCommand } from './handshake.js'
import type { Refusal, RouteContext, Settings } from './hybrid-handshake.js'
import type { SeqpacketSocket } from './seqpacket/socket.js'

/** Finds the guest's end of `port` for a dialer of messages. It belongs to the server from then on. */
export type SeqpacketRoute = (
  port: number,
  context: RouteContext,
) => Promise<MessageSocket | undefined> | MessageSocket | undefined

/** What the server does for the handshake of one dialer. */
export interface MessageHost {
  readonly settings: Pick<Settings, 'clock' | 'handshakeTimeoutMs'>
  readonly route: SeqpacketRoute
  takeHostPort(): { hostPort: number; release: () => void }
  /** The handshake has failed. Destroys the socket. */
  refuse(refusal: Omit<Refusal, 'type'>): void
  joined(info: { guest: MessageSocket; port: number; hostPort: number }): void
  /** The handshake is over, whatever became of it. */
  left(): void
}

/** One dialer of messages: CONNECT is its first message, OK the first that it gets. */
export async function shakeHands(socket: SeqpacketSocket, host: MessageHost): Promise<void> {
  const gone = new AbortController()
  void socket.closed.then(() => gone.abort(new Error("the dialer's connection is closed")))
  let port: number | undefined
  let taken: { hostPort: number; release: () => void } | undefined
  let over = false
  const leave = () => {
    over = true
    cancel()
    host.left()
  }
  const refuse = (reason: Refusal['reason'], cause?: unknown) => {
    if (over) return
    leave()
    taken?.release()
    host.refuse({ port, reason, cause })
  }
  const cancel = setLongTimer(host.settings.clock, host.settings.handshakeTimeoutMs, () => refuse('timeout'))
  void socket.closed.then(() => refuse('dialer-gone'))

  try {
    const asked = await commandOf(socket)
    if (asked === undefined) return refuse('dialer-gone')
    if (typeof asked === 'string') return refuse('bad-command', new Error(asked))
    if (over) return
    port = asked
    taken = host.takeHostPort()
    const { hostPort: given } = taken
    const guest = await host.route(port, { signal: gone.signal, hostPort: given })
    if (over) return guest?.destroy()
    if (guest === undefined) return refuse('no-route')
    if (typeof guest.receive !== 'function')
      return refuse('route-failed', new TypeError('routeSeqpacket: must return a message socket or undefined'))
    const hostPort = (guest as { hostPort?: number }).hostPort ?? given
    leave()
    void socket.closed.then(taken.release)
    host.joined({ guest, port, hostPort })
    // Before anything of the guest's. A dialer that does not take it is gone, which joinMessages finds out.
    socket.send(Buffer.from(okReply(hostPort), 'latin1')).catch(() => {})
    void joinMessages(socket, guest)
  } catch (error) {
    refuse(port === undefined ? 'dialer-gone' : 'route-failed', error)
  }
}

/** The port; what is wrong with the command; undefined: the dialer has gone. */
async function commandOf(socket: SeqpacketSocket): Promise<number | string | undefined> {
  const message = await socket.receive()
  if (message === undefined) return undefined
  const command = parseCommand(Buffer.from(message.data))
  if (command.kind === 'connect')
    return command.end === message.sentBytes ? command.port : 'more follows CONNECT in the same message'
  return command.kind === 'invalid' ? command.why : 'the first message is not CONNECT <port>'
}
