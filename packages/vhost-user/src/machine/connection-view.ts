import type { Allocate } from './blocks.js'
import type { DirectPort } from './direct.js'
import type { ConnectionOutcome } from './life.js'
import type { ReceivedMessage } from './message-buffer.js'
import type { OutgoingMessage } from './message-queue.js'
import type { SocketType } from './packet.js'
import type { Tally } from './tally.js'

// A connection as its owner has it: what it is given, what it sees, and what it does.

/** What the owner of a connection sees of its state. */
export type ConnectionState = 'connecting' | 'accepting' | 'open' | 'closing' | 'closed'

export interface ConnectionOptions {
  /** Credit given to the guest, in bytes: how much of what it sent may be waiting here. */
  readonly bufferBytes: number
  readonly handshakeMs: number
  /** How long an orderly end may take before it becomes a reset. */
  readonly lingerMs: number
  readonly allocate: Allocate
  /** Counts for the owner of the device. */
  readonly tally?: Tally | undefined
}

export interface ConnectionPorts {
  readonly hostPort: number
  readonly guestPort: number
}

export interface ConnectionEnds extends ConnectionPorts {
  /** The CID that the guest has for the host. */
  readonly hostCid: number
  readonly type: SocketType
}

/** The credit of both sides of a connection. Counters are in bytes, 32 bits wide, and wrap. */
export interface ConnectionSnapshot {
  readonly hostPort: number
  readonly guestPort: number
  readonly type: SocketType
  readonly state: ConnectionState
  /** What came from the guest: received, taken from here by the reader, told to the guest as taken; and what waits for the reader. */
  readonly host: {
    readonly bufferBytes: number
    readonly received: number
    readonly taken: number
    readonly told: number
    readonly waiting: number
  }
  /**
   * What goes to the guest: its buffer and what it has taken, by its own last word; what was sent; how many packets of that it has yet
   * to take; bytes that wait for credit; whether the guest was asked for credit and has not given any.
   */
  readonly guest: {
    readonly bufferBytes: number
    readonly sent: number
    readonly taken: number
    readonly packets: number
    readonly waiting: number
    readonly asked: boolean
  }
}

/** What the owner of a connection does with it. */
export interface Connection {
  readonly hostCid: number
  readonly hostPort: number
  readonly guestPort: number
  readonly type: SocketType
  readonly state: ConnectionState
  /** How it ended, once it is closed. */
  readonly outcome: ConnectionOutcome | undefined
  /** It is or was open, whatever came afterwards. */
  readonly opened: boolean
  /** The guest will send nothing more; what `read` still yields comes before the end. */
  readonly inputEnded: boolean
  /** The guest has said that it sends nothing more, whatever came afterwards: what it sent is complete. */
  readonly inputComplete: boolean
  /** Bytes received that `read` or `readMessage` has not yielded yet, those of an unfinished message included. */
  readonly inputPending: number
  /** Of a `seqpacket` connection: complete messages that `readMessage` has not yielded yet. */
  readonly inputMessages: number
  /** The guest takes no more bytes: writing is pointless. */
  readonly outputRefused: boolean
  /** Bytes written that no guest buffer has taken yet. */
  readonly outputPending: number
  /** Bytes for the guest were dropped because it takes no more: it shut its receiving half, or is gone. */
  readonly outputLost: boolean

  /** Lets the guest in. */
  accept(): void
  /** Of a `seqpacket` connection: the longest message that may be sent now. */
  readonly maxMessageBytes: number

  /** The next bytes from the guest, of a `stream` connection. They count as taken only once `consumed` says so. */
  read(): Uint8Array | undefined
  /** The next message from the guest, of a `seqpacket` connection. It counts as taken only once `consumed` says so. */
  readMessage(): ReceivedMessage | undefined
  /** The reader has taken `count` more bytes; the guest gets credit for them. */
  consumed(count: number, now: number): void
  /** Queues bytes for the guest. They are not copied before a guest buffer takes them: leave them alone until `outputPending` is 0. */
  write(chunk: Uint8Array): void
  /** Queues a message of 1 to `maxMessageBytes` bytes for the guest. Its `state` says what becomes of it, and each change is news. */
  send(message: OutgoingMessage): void
  /** Takes a message back that is still `waiting`. */
  withdraw(message: OutgoingMessage): void
  /**
   * From now on bytes may go straight between the guest's buffers and `port`. Bytes in both directions may still go the other way, by
   * `read` and `write`: what is written goes first, and the port decides what it takes. Undefined: no more. For streams.
   */
  attach(port: DirectPort | undefined): void
  /** Bytes for the guest are in the port that is attached. */
  arrived(): void
  /** No more bytes for the guest: SHUTDOWN(send) once the queued ones are out. */
  end(): void
  /** The owner is through: an orderly end if everything written is out, otherwise a reset. */
  close(now: number): void
  /** Ends it at once. */
  reset(): void
}
