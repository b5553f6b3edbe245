import type { Duplex } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import { type JoinedStream, joinStreams, type Loss } from '@upcall/foundation/join'
import { watchPeer } from './ends.js'

/** How long a dialer may take for what a guest had sent before it broke off. */
const BREAKING_MS = 2_000

export interface JoinOptions {
  /** false: the dialer's EOF closes both directions. */
  halfClose: boolean
  clock: Clock
  /** What the dialer is told before anything of the guest's, unless it has been told. */
  reply: string | undefined
}

/**
 * Joins a dialer's socket, or the descriptor that it passed, with the guest's end.
 *
 * - A dialer that breaks off breaks the guest's end at once. A guest that breaks off breaks the dialer when that has taken everything.
 * - A side whose bytes did not all arrive is destroyed with an error, not ended.
 */
export function join(dialer: Duplex, guest: Duplex, { halfClose, clock, reply }: JoinOptions): void {
  const near: JoinedStream = { stream: dialer, closeError, breakOff: (error) => breakOff(dialer, error, clock) }
  const far: JoinedStream = { stream: guest, closeError, breakOff: (error) => void guest.destroy(error) }
  const closeWhenTaken = joinStreams(near, far)
  // Nothing of the guest's has been read yet.
  if (reply !== undefined) dialer.write(reply, 'latin1')
  watchPeer(guest, clock)
  if (halfClose) watchPeer(dialer, clock)
  else if (dialer.readableEnded) process.nextTick(closeWhenTaken, near)
  else dialer.once('end', () => closeWhenTaken(near))
}

function closeError({ lost, refused }: Loss): Error | undefined {
  return lost > 0 ? refused : undefined
}

/** Closes a dialer whose guest broke off, when it has what the guest had sent. Unread bytes of its own make the close a reset. */
function breakOff(dialer: Duplex, error: Error, clock: Clock): void {
  const close = () => dialer.destroy(error)
  if (dialer.writableFinished) return void close()
  const cancel = clock.setTimer(BREAKING_MS, close)
  dialer.pause().once('finish', close).once('close', cancel).end()
}
