import type { Duplex } from 'node:stream'
import { type Clock, setLongTimer } from '@upcall/foundation/clock'

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
 * Reads what sd_notify(3) sends over a connection: one message, then EOF, and it waits for EOF in return, up to which a guest's PID 1 does
 * nothing else. A stream in object mode gives one message for each chunk, as SOCK_SEQPACKET does.
 *
 * (systemd, src/libsystemd/sd-daemon/sd-daemon.c: connect, sendmsg, shutdown(SHUT_WR), recv until EOF.)
 */
export function readNotify(stream: Duplex, limits: ReadLimits, { onMessage, onClosed }: ReadHandlers): Reading {
  const { maxMessageBytes, connectionTimeoutMs, quietMs, clock } = limits
  const isMessages = stream.readableObjectMode
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
    } else if (isMessages) {
      length = 0
      onMessage(chunk)
    } else {
      chunks.push(chunk)
      cancelQuiet()
      cancelQuiet = setLongTimer(clock, quietMs, answer)
    }
  }
  /** The message is complete, and its sender waits for this side's end. What else it says is not read. */
  function answer(): void {
    cancelQuiet()
    answered = true
    stream.off('data', onData).off('end', answer).resume().end()
    if (!isMessages) onMessage(Buffer.concat(chunks))
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
