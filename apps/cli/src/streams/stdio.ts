import { ReadStream } from 'node:fs'
import { type Readable, Readable as ReadableStream, Writable as WritableStream } from 'node:stream'
import { errnoOf, FieldError, textOf } from '@upcall/foundation/error'
import { closed, ended } from '@upcall/foundation/streams'
import type { RelayEnd } from '@upcall/vsock'
import type { Io } from '../output.js'

/** A pipe that is not told of the peer's end is done when it has been silent for so long. */
const SILENCE_MS = 500

export interface StdioOptions {
  /** Leaves stdin alone. */
  receiveOnly?: boolean | undefined
  /** Of a pipe; default 500 ms. A file has an end, and a person at a terminal is not waited for. */
  silenceMs?: number | undefined
}

/** This process's stdin and stdout. stdout is not ended: others write to it, too. */
export function stdioEnd({ stdin, stdout }: Pick<Io, 'stdin' | 'stdout'>, options: StdioOptions = {}): RelayEnd {
  const { receiveOnly = false, silenceMs = SILENCE_MS } = options
  const readable = receiveOnly ? new ReadableStream({ read() {} }) : stdin
  const writable = new WritableStream({ write: (chunk, _encoding, done) => void stdout.write(chunk, done) })
  const whenClosed = closed(writable)
  const destroy = () => {
    readable.destroy()
    writable.destroy()
    return whenClosed
  }
  const close = async () => {
    readable.destroy()
    await ended(writable)
    return destroy()
  }
  return {
    readable,
    writable,
    halfClose: true,
    mustBeHeard: !receiveOnly && !isTerminal(stdin),
    mayLeaveUnread: false,
    silenceMs: receiveOnly || isTerminal(stdin) ? 0 : stdin instanceof ReadStream ? undefined : silenceMs,
    gone: never(),
    // A stdout that takes no more ends it all, as SIGPIPE does elsewhere.
    refused: never(),
    broken: new Promise((resolve) => {
      readable.once('error', (cause) => resolve(new StdioError('stdin', cause)))
      writable.once('error', (cause) => resolve(new StdioError('stdout', cause)))
    }),
    end: () => ended(writable),
    close,
    abandon: close,
    destroy,
  }
}

/** stdin or stdout failed. */
export class StdioError extends FieldError {
  override readonly name = 'StdioError'

  constructor(stream: 'stdin' | 'stdout', cause: Error) {
    super({ code: errnoOf(cause), subject: stream, what: textOf(cause), cause })
  }
}

export function isTerminal(stream: Readable | WritableStream): boolean {
  return 'isTTY' in stream && stream.isTTY === true
}

export function never<T>(): Promise<T> {
  return new Promise(() => {})
}
