import { Socket } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { errnoOf } from '@upcall/foundation/error'
import { closed, ended, keepReadable } from '@upcall/foundation/streams'
import { watchPeer } from '../ends.js'
import { closedEarlyError } from './errors.js'
import type { Abilities } from './machine.js'

/**
 * One end of a relay: a connection (`socketEnd`), or any pair of a readable and a writable whose owner says how it ends. The relay reads
 * and writes the two streams itself; all else it asks of the end.
 */
export interface RelayEnd extends Abilities {
  readonly readable: Readable
  readonly writable: Writable
  /** Resolves when it has closed after its end, without an error: it has said everything and takes nothing. May never. */
  readonly gone: Promise<unknown>
  /** Resolves when it takes nothing more, although it may have something to say. When that was read, it breaks. May never. */
  readonly refused: Promise<Error>
  /** Resolves with the error that broke it. May never. */
  readonly broken: Promise<Error>
  /** Sends EOF. Resolves when all that was written has gone out, or never will. */
  end(): Promise<void>
  /** The three ways to part with it. Each resolves when nothing of it is open. This one lets everything go out that was written. */
  close(): Promise<void>
  /** The other end broke with this error. */
  abandon(error: Error): Promise<void>
  /** At once. */
  destroy(): Promise<void>
}

/** A peer that has not seen EOF, as there is no half-close to send it by, is done when it has been silent for so long. */
const SILENCE_MS = 500

/** How long a peer may take to see that the relay is over, before its connection is cut. */
const CLOSING_MS = 2_000

export interface SocketEndOptions {
  /** false: its EOF may be the end of both directions. */
  readonly halfClose: boolean
  /** How long it may be silent after the other end has ended without half-close. Default 500 ms. */
  readonly silenceMs?: number | undefined
  /** Times its closing, and the looks at whether a peer that has ended is still there. */
  readonly clock?: Clock | undefined
}

/** A connection as the end of a relay, which owns it from then on. */
export function socketEnd(
  socket: Duplex,
  { halfClose, silenceMs = SILENCE_MS, clock = systemClock }: SocketEndOptions,
): RelayEnd {
  // The end of one direction is passed on. It does not end the other one.
  socket.allowHalfOpen = true
  const whenClosed = closed(socket)
  watchPeer(socket, clock)
  const destroy = () => {
    socket.destroy()
    return whenClosed
  }
  return {
    readable: socket,
    writable: socket,
    halfClose,
    mustBeHeard: false,
    mayLeaveUnread: false,
    silenceMs,
    gone: new Promise<void>((resolve) => {
      socket.once('close', () => {
        if (socket.readableEnded && !socket.errored && !socket.writableFinished) resolve()
      })
    }),
    refused: new Promise((resolve) => keepReadable(socket, resolve)),
    broken: new Promise((resolve) => {
      if (socket.destroyed) return resolve(socket.errored ?? closedEarlyError())
      socket.once('error', resolve).once('close', () => {
        if (!socket.readableEnded) resolve(closedEarlyError())
      })
    }),
    end: () => ended(socket),
    async close() {
      if (!halfClose) return flushAndDestroy()
      await ended(socket)
      // A close with bytes unread is a reset, which could cost the peer what was last sent to it.
      socket.resume()
      return closedInTime()
    },
    async abandon(error) {
      // A reset is passed on where there is one. A peer that merely takes no more has said what it had to say.
      if (errnoOf(error) === 'EPIPE' || !reset(socket)) void flushAndDestroy()
      return closedInTime()
    },
    destroy,
  }

  function flushAndDestroy(): Promise<void> {
    if (socket instanceof Socket) socket.destroySoon()
    else void ended(socket).then(destroy)
    return whenClosed
  }

  async function closedInTime(): Promise<void> {
    const cancel = clock.setTimer(CLOSING_MS, () => void destroy())
    await whenClosed
    cancel()
  }
}

/** Resets a TCP connection. false: there is no such thing here. */
function reset(stream: Duplex): boolean {
  // libuv refuses a reset while an end is under way, and Node then never closes the socket.
  if (!(stream instanceof Socket) || (stream.writableEnded && !stream.writableFinished)) return false
  try {
    stream.resetAndDestroy()
    return true
  } catch {
    // Of the sockets that have this method, those of Unix throw.
    return false
  }
}
