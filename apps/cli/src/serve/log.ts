import { errnoName, formatOperation, type Operation } from '@upcall/device-manager'
import { messageFor } from '@upcall/foundation/error'
import type { GuestConnection, GuestService, GuestSession, Replies } from '@upcall/server'
import { type Arch, decodeReply, decodeRequest, FrameDecoder, isWireError, MESSAGE_SIZE } from '@upcall/wire'
import { rounded } from '../report.js'

/** One message that the guest read, and its answer. */
export interface Served {
  connection: number
  /** Absent for what cannot be understood. */
  operation?: Operation
  /** Why it cannot. */
  malformed?: string
  /** Absent if no reply will ever come. */
  result?: number
  errnoName?: string
  /** From the message to the reply. */
  durationMs: number
}

export interface LogOptions {
  arch: Arch
  /** Whether the service puts messages together, rather than taking each read for one as the kernel does. */
  framed: boolean
  log: (served: Served) => void
}

/** The same service, which also tells what it reads and what it answers. It changes neither. */
export function logged(service: GuestService, options: LogOptions): GuestService {
  return { ...service, open: (connection) => new LoggedSession(service.open(connection), connection, options) }
}

class LoggedSession implements GuestSession {
  readonly greeting: Uint8Array
  readonly #inner: GuestSession
  readonly #connection: GuestConnection
  readonly #options: LogOptions
  readonly #frames = new FrameDecoder()

  constructor(inner: GuestSession, connection: GuestConnection, options: LogOptions) {
    this.greeting = inner.greeting
    this.#inner = inner
    this.#connection = connection
    this.#options = options
  }

  receive(chunk: Uint8Array, now: number): ReturnType<GuestSession['receive']> {
    const pieces = this.#options.framed ? this.#frames.push(chunk) : piecesOf(chunk)
    const started = performance.now()
    const tell = (answers: Uint8Array[]) => {
      this.#tell(pieces, answers, performance.now() - started)
      return answers
    }
    const told = (replies: Replies) => (Symbol.asyncIterator in replies ? collect(replies).then(tell) : tell([...replies]))
    const replies = this.#inner.receive(chunk, now)
    if (!(replies instanceof Promise)) return told(replies)
    return replies.then(told, (error) => {
      this.#tell(pieces, [], performance.now() - started)
      throw error
    })
  }

  close(): void {
    this.#inner.close()
  }

  #tell(pieces: readonly Uint8Array[], answers: readonly Uint8Array[], durationMs: number): void {
    const { arch, log } = this.#options
    pieces.forEach((piece, i) => {
      const answer = answers[i]
      const result = answer === undefined ? undefined : decodeReply(answer, arch).result
      log({
        connection: this.#connection.id,
        ...read(piece, arch),
        ...(result !== undefined && { result }),
        ...(result && { errnoName: errnoName(result) }),
        durationMs: rounded(durationMs),
      })
    })
  }
}

async function collect(replies: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const all: Uint8Array[] = []
  for await (const reply of replies) all.push(reply)
  return all
}

/** As the kernel's session does: whatever one read of at most 1024 bytes brings. */
function piecesOf(chunk: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = []
  for (let at = 0; at < chunk.length; at += MESSAGE_SIZE) pieces.push(chunk.subarray(at, at + MESSAGE_SIZE))
  return pieces
}

function read(piece: Uint8Array, arch: Arch): Pick<Served, 'operation' | 'malformed'> {
  if (piece.length < MESSAGE_SIZE) return { malformed: `torn: a read of ${piece.length} bytes, taken for a message` }
  try {
    return { operation: formatOperation(decodeRequest(piece, arch)) }
  } catch (error) {
    if (isWireError(error)) return { malformed: messageFor(error) }
    throw error
  }
}
