import type { SocketBinding } from '@upcall/foundation/addon/binding'

/** What this package's addon exports: what all have, connections, and their way under a `net.Socket`. */
export interface Binding extends SocketBinding<Descriptor> {
  readonly AF_INET: number
  readonly AF_VSOCK: number
  readonly SOL_SOCKET: number
  readonly SO_ERROR: number
  readonly SO_SNDBUF: number

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
export const API_VERSION = 2

declare const brand: unique symbol

/** Owns one file descriptor. Closed by `close`, by `adopt`, by the garbage collector or with the thread, whichever is first. */
export interface Descriptor {
  readonly [brand]: 'Descriptor'
}
