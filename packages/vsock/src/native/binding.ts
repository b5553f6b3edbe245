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

  /** This machine's CID, from /dev/vsock. */
  localCid(): number
}

/** The version of `Binding` this package was written for. */
export const API_VERSION = 1

declare const brand: unique symbol

/** Owns one file descriptor. Closed by `close`, by `adopt`, by the garbage collector or with the thread, whichever is first. */
export interface Descriptor {
  readonly [brand]: 'Descriptor'
}
