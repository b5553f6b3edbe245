// What Node's streams leave open to those that pass streams on. Node only.

import { Socket } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'

/** Resolves when the stream has closed. */
export function closed(stream: Readable | Writable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) resolve()
    else stream.once('close', resolve)
  })
}

/** Ends a stream. Resolves when all that was written has gone out, or never will. */
export function ended(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.writableFinished || stream.destroyed) return resolve()
    stream.once('finish', resolve).once('close', resolve)
    if (!stream.writableEnded) stream.end()
  })
}

/** As long as it is connected. */
export function isTcp(stream: unknown): boolean {
  return stream instanceof Socket && stream.remoteAddress !== undefined
}

type Done = (error?: Error | null) => void
type Writes = Partial<Record<'_write' | '_writev', (...args: unknown[]) => void>>

/**
 * Keeps a stream readable although its peer takes no more. Node destroys a stream whose write fails, and drops what the peer had
 * sent until then. From here on such a failure (EPIPE) waits until everything has been read: then the stream fails with it. For
 * streams that are read to their end: otherwise the failure comes late, or never.
 *
 * A reset (ECONNRESET) is told at once: the kernel tells of it once, and a reader that went on would see an end in order. So is
 * everything that TCP tells, where a write fails only after a reset.
 *
 * @param onRefused called once, at once. What is written from then on is dropped.
 */
export function keepReadable(stream: Duplex, onRefused: (error: Error) => void): void {
  if (!isTcp(stream)) readToEnd(stream, onRefused)
}

/**
 * As `keepReadable`, for TCP, too. There a write fails with EPIPE only after the peer has ended its writing: what it sent is complete, and
 * the kernel still has it. (A peer that is reset before its end is told of by ECONNRESET.)
 */
export function readToEnd(stream: Duplex, onRefused: (error: Error) => void): void {
  const writes = stream as unknown as Writes
  for (const name of ['_write', '_writev'] as const) {
    const write = writes[name]
    if (typeof write !== 'function') continue
    writes[name] = function (this: unknown, ...args: unknown[]) {
      const done = args.pop() as Done
      write.call(this, ...args, ((error) => {
        if ((error as NodeJS.ErrnoException | null | undefined)?.code !== 'EPIPE' || stream.readableEnded || stream.destroyed)
          return done(error)
        const tell = () => {
          stream.off('end', tell).off('close', tell)
          done(error)
        }
        stream.on('end', tell).on('close', tell)
        onRefused(error as Error)
      }) satisfies Done)
    }
  }
}
