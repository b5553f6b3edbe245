import { ReadStream } from 'node:fs'
import { Socket } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'
import { Readable as ReadableStream, Writable as WritableStream } from 'node:stream'
import { type Clock, keepReadable, VsockSocket, watchPeer } from '@upcall/vsock'
import type { Io } from '../output.js'

/** How long a party that is not wanted any more may take to see it, before it is cut off. */
export const CLOSING_MS = 2_000

/** One of the two that a relay joins: a connection, this process's stdin and stdout, or a program's. */
export interface Party {
  readonly source: Readable
  readonly sink: Writable
  /** Says EOF. Resolves when all that was written has gone out, or will never. */
  endSink(): Promise<void>
  /** Resolves when it has said everything and takes nothing any more. May never. */
  readonly over: Promise<void>
  /** Resolves when it takes nothing any more, and may have something to say still. May never. It breaks when that has been read. */
  readonly refused: Promise<Error>
  /** It may be over with something untaken: that is its own affair. */
  readonly needNotTakeAll: boolean
  /** Once the other one is over: what it still says is a loss that has to be told. */
  readonly mustBeHeard: boolean
  /** Resolves when it has said everything and perhaps takes no more: what the other one has for it now is tried. May never. */
  readonly lastCall: Promise<void>
  /** Behind the other one's last call: how long it may be silent before it is taken for done. undefined: it ends by itself. */
  readonly lastWordsMs: number | undefined
  /** Resolves with what broke it. May never. */
  readonly broken: Promise<Error>
  /** The three ways to part with it; each resolves when nothing of it is open. First: everything written still goes out. */
  close(): Promise<void>
  /** The other party broke with this error. */
  abandon(error: Error): Promise<void>
  /** At once. */
  destroy(): Promise<void>
}

/** A sender that is not told of the end, as there is no half-close to tell it by, is done when it has been silent for so long. */
const LAST_WORDS_MS = 500

export interface SocketOptions {
  /** false: its EOF may be the end of both directions. */
  halfClose: boolean
  /** Default 500 ms. */
  lastWordsMs?: number | undefined
  /** Of the looks whether a peer that has ended is still there. */
  clock?: Clock | undefined
}

/** A connection, which the party then owns. */
export function socketParty(socket: Duplex, { halfClose, lastWordsMs = LAST_WORDS_MS, clock }: SocketOptions): Party {
  const closed = closeOf(socket)
  watchPeer(socket, clock)
  const over = new Promise<void>((resolve) => {
    socket.once('close', () => {
      // After its end, without an error: it takes no more, and has said everything.
      if (socket.readableEnded && !socket.errored && !socket.writableFinished) resolve()
    })
  })
  const refused = new Promise<Error>((resolve) => keepReadable(socket, resolve))
  const destroy = () => {
    socket.destroy()
    return closed
  }
  return {
    source: socket,
    sink: socket,
    endSink: () => ended(socket),
    over,
    refused,
    needNotTakeAll: false,
    mustBeHeard: false,
    lastCall: halfClose ? never() : new Promise((resolve) => socket.once('end', resolve)),
    lastWordsMs,
    broken: new Promise((resolve) => {
      if (socket.destroyed) return resolve(socket.errored ?? closedEarly())
      socket.once('error', resolve).once('close', () => {
        if (!socket.readableEnded) resolve(closedEarly())
      })
    }),
    async close() {
      if (!halfClose) return flushAndDestroy(socket)
      await ended(socket)
      // A close with bytes unread is a reset, which could cost the peer what was last said to it.
      socket.resume()
      const timer = setTimeout(destroy, CLOSING_MS)
      await closed
      clearTimeout(timer)
    },
    async abandon(error) {
      const { code } = error as NodeJS.ErrnoException
      // A reset is passed on where there is one. A peer that merely takes no more has said what it had to say.
      // libuv refuses a reset while an end is under way, and Node then never closes the socket.
      const ending = socket.writableEnded && !socket.writableFinished
      if (socket instanceof Socket && !(socket instanceof VsockSocket) && code !== 'EPIPE' && !ending) socket.resetAndDestroy()
      else flushAndDestroy(socket)
      const timer = setTimeout(destroy, CLOSING_MS)
      await closed
      clearTimeout(timer)
    },
    destroy,
  }

  function flushAndDestroy(stream: Duplex): Promise<void> {
    if (stream instanceof Socket) stream.destroySoon()
    else void ended(stream).then(destroy)
    return closed
  }
}

export interface StdioOptions {
  /** Leaves stdin alone. */
  receiveOnly?: boolean | undefined
  /** Of a pipe; default 500 ms. A file has an end, and whoever sits at a terminal is not waited for. */
  lastWordsMs?: number | undefined
}

/** This process's stdin and stdout. stdout is not ended: others write to it, too. */
export function stdioParty({ stdin, stdout }: Pick<Io, 'stdin' | 'stdout'>, options: StdioOptions = {}): Party {
  const { receiveOnly = false, lastWordsMs = LAST_WORDS_MS } = options
  const source = receiveOnly ? new ReadableStream({ read() {} }) : stdin
  const sink = new WritableStream({ write: (chunk, _encoding, done) => void stdout.write(chunk, done) })
  const closed = closeOf(sink)
  const destroy = () => {
    source.destroy()
    sink.destroy()
    return closed
  }
  return {
    source,
    sink,
    endSink: () => ended(sink),
    over: never(),
    // A stdout that takes no more ends it all, as SIGPIPE does elsewhere.
    refused: never(),
    needNotTakeAll: false,
    mustBeHeard: !receiveOnly && !isTerminal(stdin),
    lastCall: never(),
    lastWordsMs: receiveOnly || isTerminal(stdin) ? 0 : stdin instanceof ReadStream ? undefined : lastWordsMs,
    broken: new Promise((resolve) => {
      source.once('error', (error) => resolve(named('stdin', error)))
      sink.once('error', (error) => resolve(named('stdout', error)))
    }),
    async close() {
      source.destroy()
      await ended(sink)
      return destroy()
    },
    async abandon() {
      await this.close()
    },
    destroy,
  }
}

export function isTerminal(stdin: Readable): boolean {
  return 'isTTY' in stdin && stdin.isTTY === true
}

export function never<T>(): Promise<T> {
  return new Promise(() => {})
}

export function closeOf(stream: Readable | Writable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) resolve()
    else stream.once('close', resolve)
  })
}

/** Ends a stream and waits until all of it has gone out, or never will. */
export function ended(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.writableFinished || stream.destroyed) return resolve()
    stream.once('finish', resolve).once('close', resolve)
    if (!stream.writableEnded) stream.end()
  })
}

function closedEarly(): Error {
  return Object.assign(new Error('closed before it had ended'), { code: 'ECONNRESET' })
}

function named(name: string, error: Error): Error {
  return Object.assign(new Error(`${name}: ${error.message}`, { cause: error }), { code: (error as NodeJS.ErrnoException).code })
}
