import type { Duplex } from 'node:stream'
import { type Clock, setLongTimer } from '@upcall/foundation/clock'
import type { MessageSocket } from '@upcall/foundation/message-socket'

/** Why a connection was closed without a message, or with no more of them. */
export type NotifyRefusalReason =
  /** Another guest's. */
  | 'cid'
  /** From a port that every process of the guest can have. */
  | 'port'
  /** As many connections as are allowed, or messages of as many guests, are there already. */
  | 'full'
  /** The message is longer than is allowed. */
  | 'too-long'
  /** The guest did not end its message in time. */
  | 'timeout'
  /** There is no assignment in it. */
  | 'malformed'
  /** The connection broke. */
  | 'broken'

export interface ReadLimits {
  readonly maxMessageBytes: number
  readonly connectionTimeoutMs: number
  /** Infinity: the end of a message is the end of the stream. */
  readonly quietMs: number
  readonly clock: Clock
}

export interface Reading {
  /** Breaks the connection. */
  stop(): void
}

export interface ReadHandlers {
  onMessage(bytes: Uint8Array): void
  /** The connection is gone, and every message was told. */
  onClosed(refusal: NotifyRefusalReason | undefined): void
}

/**
 * Reads what sd_notify(3) sends over a connection: one message, then EOF. It waits for EOF in return, and until then a guest's PID 1 does
 * nothing else.
 *
 * (systemd, src/libsystemd/sd-daemon/sd-daemon.c: connect, sendmsg, shutdown(SHUT_WR), recv until EOF.)
 */
export function readNotify(stream: Duplex, limits: ReadLimits, { onMessage, onClosed }: ReadHandlers): Reading {
  const { maxMessageBytes, connectionTimeoutMs, quietMs, clock } = limits
  let chunks: Uint8Array[] = []
  let length = 0
  let answered = false
  let over = false
  let cancelQuiet = () => {}
  const cancelDeadline = setLongTimer(clock, connectionTimeoutMs, () => close(answered ? undefined : 'timeout'))

  function close(refusal: NotifyRefusalReason | undefined): void {
    if (over) return
    over = true
    cancelDeadline()
    cancelQuiet()
    stream.off('data', onData).off('end', answer).off('close', onClose).destroy()
    onClosed(refusal)
  }
  function onData(chunk: Uint8Array): void {
    length += chunk.length
    if (length > maxMessageBytes) {
      close('too-long')
      return
    }
    chunks.push(chunk)
    cancelQuiet()
    cancelQuiet = setLongTimer(clock, quietMs, answer)
  }
  /** The message is complete, and its sender waits for this side's end. What else it says is not read. */
  function answer(): void {
    cancelQuiet()
    answered = true
    stream.off('data', onData).off('end', answer).resume().end()
    onMessage(Buffer.concat(chunks))
    chunks = []
  }
  function onClose(): void {
    close(answered ? undefined : 'broken')
  }
  stream
    .on('error', () => {})
    .on('data', onData)
    .on('end', answer)
    .on('close', onClose)
  return { stop: () => close('broken') }
}

/** The same from SOCK_SEQPACKET, where each packet is a message. */
export function readNotifyPackets(socket: MessageSocket, limits: ReadLimits, { onMessage, onClosed }: ReadHandlers): Reading {
  let answered = false
  let over = false
  const cancelDeadline = setLongTimer(limits.clock, limits.connectionTimeoutMs, () => close(answered ? undefined : 'timeout'))

  function close(refusal: NotifyRefusalReason | undefined): void {
    if (over) return
    over = true
    cancelDeadline()
    socket.destroy()
    onClosed(refusal)
  }
  async function read(): Promise<void> {
    for (;;) {
      const message = await socket.receive()
      if (over) return
      if (message === undefined) break
      if (message.sentBytes > limits.maxMessageBytes) {
        close('too-long')
        return
      }
      onMessage(message.data)
    }
    answered = true
    socket.end()
    await socket.closed
    close(undefined)
  }
  read().catch(() => close('broken'))
  return { stop: () => close('broken') }
}
