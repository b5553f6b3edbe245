import type { SocketBinding } from '@upcall/foundation/addon/binding'

/** What this package's addon exports: what all have, connections, and their way under a `net.Socket`. */
export interface Binding extends SocketBinding<Descriptor> {
  readonly AF_INET: number
  readonly AF_VSOCK: number
  readonly SOL_SOCKET: number
  readonly SO_ERROR: number
  readonly SO_SNDBUF: number
  /** Every message comes with its time; so an empty message is told from the end. */
  readonly SO_TIMESTAMP: number
  readonly SOCK_SEQPACKET: number
  readonly SOCK_DGRAM: number

  /** Whether it is connected already; if not, it will be writable when it is decided. */
  connect(descriptor: Descriptor, sockaddr: Uint8Array): boolean
  /** Throws what became of a connect in progress (SO_ERROR). */
  finishConnect(descriptor: Descriptor): void
  getsockname(descriptor: Descriptor): Uint8Array
  getpeername(descriptor: Descriptor): Uint8Array
  setsockopt(descriptor: Descriptor, level: number, option: number, value: Uint8Array): void
  getsockopt(descriptor: Descriptor, level: number, option: number, length: number): Uint8Array

  /** One end of an AF_UNIX pair whose other end is closed. */
  placeholder(): Descriptor
  /**
   * Calls `create` with the placeholder's number, then puts the connection under that number. Both descriptors are spent, the
   * number belongs to what `create` made. If `create` throws, nothing has happened.
   */
  adopt<T>(connection: Descriptor, placeholder: Descriptor, create: (fd: number) => T): T

  /** What a number that was inherited stands for. Throws EBADF, and ENOTSOCK for a descriptor that is not a socket. */
  inspect(fd: number): Inspected
  /** Keeps the descriptor from the programs that this process starts. */
  closeOnExec(fd: number): void
  /** Takes an inherited socket over: non-blocking and close-on-exec from here on. If it throws, the number is still the caller's. */
  inherit(fd: number): Descriptor
  /** One AF_UNIX datagram of 1 to 4096 bytes. Throws EAGAIN where it would have to wait. */
  sendDatagram(sockaddr: Uint8Array, bytes: Uint8Array): void

  /** This machine's CID, from /dev/vsock. */
  localCid(): number

  /**
   * Up to `length` bytes and the descriptors beside them, which are close-on-exec. No bytes: the end of the stream. Undefined: nothing
   * there yet. EMSGSIZE: more than eight descriptors came, and all are closed.
   */
  receive(descriptor: Descriptor, length: number): { bytes: Uint8Array; descriptors: Descriptor[] } | undefined
  /** How many bytes went, with the descriptors; undefined: none, wait until it is writable. */
  send(descriptor: Descriptor, bytes: Uint8Array, descriptors: readonly Descriptor[]): number | undefined
  /** A descriptor of the same open file. The number stays its owner's. */
  duplicate(fd: number): Descriptor
  /** The number, which is the caller's to close from then on. */
  release(descriptor: Descriptor): number
  describe(descriptor: Descriptor): Description
  /** Makes it non-blocking, for all its holders; a terminal is opened once more instead, where that can be. */
  unblock(descriptor: Descriptor): void
  /** How many bytes were read into `bytes`, 0 at the end; undefined: nothing there yet. Blocks where the descriptor does. */
  read(descriptor: Descriptor, bytes: Uint8Array): number | undefined
  /** How many bytes went; undefined: none, wait until it is writable. */
  write(descriptor: Descriptor, bytes: Uint8Array): number | undefined
  /** Ends the writing direction of a socket. */
  shutdown(descriptor: Descriptor): void

  /** Non-blocking and close-on-exec. */
  typedSocket(family: number, type: number): Descriptor
  /**
   * How long the next message is, which stays; 0 also at the end. undefined: nothing there yet. AF_VSOCK cannot tell before Linux 6.7:
   * EOPNOTSUPP, or another errno.
   */
  messageLength(descriptor: Descriptor): number | undefined
  /** The next message, cut to `limit` bytes; undefined: nothing there yet. Descriptors that come with it are closed. */
  receiveMessage(descriptor: Descriptor, limit: number): ReceivedMessage | undefined
  /** Sends one whole message of any length. false: nothing went, wait until it is writable. `sockaddr` is for datagrams. */
  sendMessage(descriptor: Descriptor, bytes: Uint8Array, eor: boolean, sockaddr: Uint8Array | undefined): boolean
  /** Whether the peer has closed, where it may as well have ended its direction. */
  hungUp(descriptor: Descriptor): boolean
  /**
   * Sends one whole message, which is copied, on a thread that waits until there is room for all of it. `callback` gets the errno as a
   * positive number, or 0. A waiting thread keeps the process alive. Makes the descriptor a blocking one.
   */
  sendWaiting(descriptor: Descriptor, bytes: Uint8Array, eor: boolean, callback: (errno: number) => void): void
  /** Shuts both directions down, which ends a send that waits. */
  cut(descriptor: Descriptor): void
}

export interface ReceivedMessage {
  readonly bytes: Uint8Array
  /** What the message had before it was cut. */
  readonly length: number
  /** MSG_EOR. */
  readonly eor: boolean
  /** There is no message, and none will come. Without SO_TIMESTAMP also an empty message over AF_UNIX. */
  readonly end: boolean
  /** The sender, where the system tells. */
  readonly from?: Uint8Array | undefined
}

/** What a descriptor refers to. */
export interface Description {
  /** As `fstat` has it. */
  readonly mode: number
  /** The device that a device file stands for. */
  readonly device: number
  /** As `open` had them. */
  readonly flags: number
  readonly terminal: boolean
}

export interface Inspected {
  /** `AF_UNIX`, … */
  readonly family: number
  /** The kernel's SOCK_STREAM (1), SOCK_DGRAM (2), … */
  readonly type: number
  readonly listening: boolean
  /** The family alone if it has no name. */
  readonly local: Uint8Array
  /** undefined if it is not connected. */
  readonly peer?: Uint8Array | undefined
}

/** The version of `Binding` this package was written for. */
export const API_VERSION = 4

declare const brand: unique symbol

/** Owns one file descriptor. Closed by `close`, by `adopt`, by the garbage collector or with the thread, whichever is first. */
export interface Descriptor {
  readonly [brand]: 'Descriptor'
}
