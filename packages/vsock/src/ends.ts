import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { isTcp } from '@upcall/foundation/streams'

// For programs that pass a stream on: which of its two directions has ended.

/** The first pause between two looks at a peer that has ended its direction. Each pause is twice as long as the last. */
const FIRST_PAUSE_MS = 50
/** The longest. */
const LONGEST_PAUSE_MS = 500

const EMPTY = Buffer.alloc(0)

/**
 * Tells whether a peer has closed or has only ended its own direction: both are EOF to a reader. From the socket's `'end'`
 * on, an empty write asks from time to time. A peer that has half-closed does not see it. After a close, or after the peer has shut
 * down its reading side, it fails with EPIPE: then the socket is destroyed without an error, since its peer wants nothing more.
 *
 * Over TCP a close is the same FIN as a half-close, and EPIPE means that bytes were lost. So TCP is not asked, nor is TLS, nor a
 * stream that is not a socket. The looks count as activity for `socket.setTimeout()`. Bytes that the kernel has taken count as taken:
 * the kernel does not say whether a Unix socket's peer has read them.
 *
 * @returns how to stop asking.
 */
export function watchPeer(stream: Duplex, clock: Clock = systemClock): () => void {
  if (!(stream instanceof Socket) || 'encrypted' in stream || isTcp(stream)) return () => {}
  let pauseMs = FIRST_PAUSE_MS
  let cancel = () => {}
  let stopped = false
  const again = () => {
    cancel = clock.setTimer(pauseMs, look)
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)
  }
  const look = () => {
    if (stopped || !stream.writable) return
    // Bytes that wait to be written find out by themselves.
    if (stream.writableLength > 0) return again()
    // Not write(): its failure would be the stream's. The encoding is what Writable passes with a Buffer.
    stream._write(EMPTY, 'buffer' as BufferEncoding, (error) => {
      if (stopped) return
      if (!error) again()
      else stream.destroy((error as NodeJS.ErrnoException).code === 'EPIPE' ? undefined : error)
    })
  }
  const stop = () => {
    stopped = true
    cancel()
    stream.off('end', look).off('close', stop)
  }
  stream.once('close', stop)
  if (stream.readableEnded) process.nextTick(look)
  else stream.once('end', look)
  return stop
}
