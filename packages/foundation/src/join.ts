// Two streams joined, each direction by itself. What becomes of a stream whose other end has gone is the caller's to say. Node only.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { keepReadable, readToEnd } from './streams.js'

/** What is known of the bytes that a stream sent to the other one, when that one has gone. */
export interface Loss {
  /** This many were never taken. */
  readonly lost: number
  /** Why the other stream took no more. */
  readonly refused: Error
  /** What the other stream was destroyed with. */
  readonly errored: Error | null
}

/** One of the two, and how its owner parts with it. */
export interface JoinedStream {
  readonly stream: Duplex
  /** A write that fails on TCP leaves the stream readable as well. Default: the stream fails at once. */
  readonly keepsTcp?: boolean | undefined
  /** The other stream has closed after its EOF. This one closes when it has taken everything; the result is the error that it closes with. */
  closeError(loss: Loss): Error | undefined
  /**
   * The other stream was destroyed before its EOF. `whenTaken` calls back once this one has taken everything that was written to it,
   * or takes no more.
   */
  breakOff(error: Error, whenTaken: (fn: () => void) => void): void
}

/** By this name a stream is told which stream it was joined with, and may find a shorter way between the two. */
export const JOINED = Symbol.for('@upcall/joined')

type Joinable = Duplex & { [JOINED]?(other: Duplex): void }

/** A stream, and what becomes of the bytes that the other one sends to it. */
interface End extends JoinedStream {
  /** Written to it, and not taken yet. */
  pending: number
  /** It will never have these. */
  lost: number
  /** It takes no more. */
  refused: Error | undefined
  onSettled: () => void
}

/**
 * Joins two streams, both ways, with backpressure.
 *
 * - EOF of one ends the writing to the other, after everything that was sent, and leaves the way back open.
 * - A stream that takes no more is still read to its end. What the other one sends meanwhile is dropped.
 * - A stream that has closed after its EOF closes the other one, as soon as that has taken everything.
 * - A stream that is destroyed before its EOF breaks the other one off.
 *
 * @returns closes one of the two once it has taken everything, as if the other one had closed.
 */
export function joinStreams(a: JoinedStream, b: JoinedStream): (which: JoinedStream) => void {
  const near: End = { ...a, pending: 0, lost: 0, refused: undefined, onSettled: () => {} }
  const far: End = { ...b, pending: 0, lost: 0, refused: undefined, onSettled: () => {} }
  for (const [one, other] of [
    [near, far],
    [far, near],
  ] as const) {
    const { stream, keepsTcp = false } = one
    // Its end is passed on. It does not end the other direction, whatever its maker chose.
    stream.allowHalfOpen = true
    const keep = keepsTcp ? readToEnd : keepReadable
    keep(stream, (error) => refuse(one, other, error))
    // 'close' follows and does what there is to do.
    stream.on('error', () => {})
    stream.once('close', () => {
      const error = stream.errored ?? gone()
      refuse(one, other, error)
      if (other.stream.destroyed) return
      if (stream.readableEnded) closeWhenTaken(other, one)
      else other.breakOff(error, (fn) => whenTaken(other, fn))
    })
  }
  carry(near, far)
  carry(far, near)
  for (const [{ stream }, other] of [
    [a, b],
    [b, a],
  ] as const)
    (stream as Joinable)[JOINED]?.(other.stream)
  return (which) => (which === a ? closeWhenTaken(near, far) : closeWhenTaken(far, near))
}

function carry(from: End, to: End): void {
  // Of the chunks that were written and not taken yet. Callbacks come in the order of the writes; Node tells of many at once if they are
  // the same function.
  let lengths: number[] = []
  let first = 0
  const taken = (error?: Error | null) => {
    const length = lengths[first++]!
    // Not only when all are taken: with a stream that always has some to take, that never comes.
    if (2 * first >= lengths.length) {
      lengths = lengths.slice(first)
      first = 0
    }
    if (error || to.refused) return
    to.pending -= length
    if (to.pending === 0) to.onSettled()
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
  if (from.stream.readableEnded) process.nextTick(() => to.stream.end())
  else from.stream.once('end', () => to.stream.end())
}

/** From here on nothing reaches `end`. What the other one sends is dropped, so that it comes to its end. */
function refuse(end: End, other: End, error: Error): void {
  if (end.refused) return
  end.refused = error
  end.lost += end.pending
  end.pending = 0
  other.stream.resume()
  end.onSettled()
}

function whenTaken(end: End, fn: () => void): void {
  if (end.pending === 0 || end.refused) fn()
  else end.onSettled = fn
}

function closeWhenTaken(end: End, other: End): void {
  const { stream } = end
  if (stream.destroyed) return
  const close = () => {
    const { lost, refused = gone(), stream } = other
    end.stream.destroy(end.closeError({ lost, refused, errored: stream.errored }))
  }
  if (stream.writableFinished) return void close()
  // Not end(): on a transport without half-close that would wait for the peer.
  if (stream instanceof Socket) stream.once('finish', close).destroySoon()
  // A stream whose peer takes no more has no 'finish'; the callback tells of that, too. It may have been ended before.
  else stream.end(close)
  stream.resume()
}

function gone(): Error {
  return Object.assign(new Error('the other end of the connection is gone'), { code: 'ECONNRESET' })
}
