import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import { keepReadable } from '@upcall/foundation/streams'
import { watchPeer } from './ends.js'

/** How long a dialer may take to take what a guest had said that broke off. */
const BREAKING_MS = 2_000

export interface JoinOptions {
  /** false: the dialer's EOF closes both directions. */
  halfClose: boolean
  clock: Clock
  /** What the dialer is told before anything of the guest's. */
  reply: string
}

/** One of the two, and what becomes of the bytes that the other one says to it. */
interface End {
  readonly stream: Duplex
  /** Handed to it, not taken yet. */
  pending: number
  /** It will never have these. */
  lost: number
  /** It takes no more. */
  refused: Error | undefined
}

/**
 * Joins a dialer's socket with the guest's end, both ways, with backpressure.
 *
 * - EOF of one side ends the writing to the other, after all that was said, and leaves the way back open.
 * - A side that takes no more is still heard to its end. What the other one says meanwhile goes nowhere.
 * - A side that has closed after its EOF closes the other one, as soon as that has taken everything.
 * - A side that breaks off breaks the other one: the guest at once, the dialer when it has what the guest had said.
 * - A side whose bytes did not all arrive is destroyed with an error, not ended.
 */
export function join(dialer: Socket, guest: Duplex, { halfClose, clock, reply }: JoinOptions): void {
  const near: End = { stream: dialer, pending: 0, lost: 0, refused: undefined }
  const far: End = { stream: guest, pending: 0, lost: 0, refused: undefined }
  for (const [one, other] of [
    [near, far],
    [far, near],
  ] as const) {
    keepReadable(one.stream, (error) => refuse(one, other, error))
    // 'close' follows and does what there is to do.
    one.stream.on('error', () => {})
    one.stream.once('close', () => {
      if (one.stream.readableEnded) {
        refuse(one, other, one.stream.errored ?? gone())
        finish(other, one)
      } else {
        const error = one.stream.errored ?? gone()
        if (one === near) guest.destroy(error)
        else breakOff(dialer, error, clock)
      }
    })
  }
  dialer.write(reply, 'latin1')
  carry(near, far)
  carry(far, near)
  watchPeer(guest, clock)
  if (halfClose) watchPeer(dialer, clock)
  else onceEnded(dialer, () => finish(near, far))
}

function carry(from: End, to: End): void {
  // Of the chunks that were written and not taken yet. Callbacks come in the order of the writes; Node tells of many at once if they are
  // the same function.
  let lengths: number[] = []
  let first = 0
  const taken = (error?: Error | null) => {
    const length = lengths[first++]!
    if (first === lengths.length) {
      lengths = []
      first = 0
    }
    if (!error && !to.refused) to.pending -= length
  }
  from.stream.on('data', (chunk: Buffer) => {
    if (to.refused || !to.stream.writable) {
      to.lost += chunk.length
      return
    }
    to.pending += chunk.length
    lengths.push(chunk.length)
    if (!to.stream.write(chunk, taken)) from.stream.pause()
  })
  to.stream.on('drain', () => from.stream.resume())
  onceEnded(from.stream, () => to.stream.end())
}

/** From here on nothing reaches `end`, and what the other one says is let go, so that it comes to its end. */
function refuse(end: End, other: End, error: Error): void {
  if (end.refused) return
  end.refused = error
  end.lost += end.pending
  end.pending = 0
  other.stream.resume()
}

/** Closes `end` when it has taken everything: the other one is gone. With an error, if what it said did not all get there. */
function finish(end: End, other: End): void {
  const { stream } = end
  const close = () => stream.destroy(other.lost > 0 ? (other.refused ?? gone()) : undefined)
  if (stream.destroyed) return
  if (stream.writableFinished) return void close()
  // Not end(): on a transport without half-close that would wait for the guest.
  if (stream instanceof Socket) stream.once('finish', close).destroySoon()
  // A stream whose peer takes no more has no 'finish'; the callback tells of that, too.
  else if (stream.writableEnded) stream.once('finish', close)
  else stream.end(close)
  stream.resume()
}

/** Closes a dialer whose guest broke off, when it has what the guest had said. Unread bytes of its own make the close a reset. */
function breakOff(dialer: Socket, error: Error, clock: Clock): void {
  const close = () => dialer.destroy(error)
  if (dialer.writableFinished) return void close()
  const cancel = clock.setTimer(BREAKING_MS, close)
  dialer.pause().once('finish', close).once('close', cancel).end()
}

function onceEnded(stream: Duplex, fn: () => void): void {
  if (stream.readableEnded) process.nextTick(fn)
  else stream.once('end', fn)
}

function gone(): Error {
  return Object.assign(new Error('the other end of the connection is gone'), { code: 'ECONNRESET' })
}
