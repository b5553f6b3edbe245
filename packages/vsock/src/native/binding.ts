/**
 * What the addon (native/ at the root of the repository and this package's native/) exports: one function per system call, and
 * readiness. Functions throw Node-style errors (`code`, negative `errno`, `syscall`); wrong arguments throw a TypeError.
 */
export interface Binding {
  /** Changes with every change of what is below. */
  readonly API_VERSION: number

  readonly READABLE: number
  readonly WRITABLE: number
  readonly AF_UNIX: number
  readonly AF_INET: number
  readonly AF_VSOCK: number
  readonly SOL_SOCKET: number
  readonly SO_ERROR: number
  readonly SO_SNDBUF: number

  /** A stream socket, non-blocking and close-on-exec. */
  socket(family: number): Descriptor
  bind(descriptor: Descriptor, sockaddr: Uint8Array): void
  listen(descriptor: Descriptor, backlog: number): void
  /** The next connection, or undefined if nobody is waiting. Connections that died in the queue are passed over. */
  accept(descriptor: Descriptor): { descriptor: Descriptor; peer: Uint8Array } | undefined
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

  /**
   * Calls back on each readiness until `unwatch` or `close`. `events` 0 stands for an error condition, to be read with
   * SO_ERROR: watching has ended then. A second `watch` replaces the first.
   */
  watch(descriptor: Descriptor, events: number, callback: (events: number) => void): void
  unwatch(descriptor: Descriptor): void
  ref(descriptor: Descriptor): void
  unref(descriptor: Descriptor): void
  /** Also a closed one. */
  close(descriptor: Descriptor): void
}

/** The version of `Binding` this package was written for. */
export const API_VERSION = 1

declare const brand: unique symbol

/** Owns one file descriptor. Closed by `close`, by `adopt`, by the garbage collector or with the thread, whichever is first. */
export interface Descriptor {
  readonly [brand]: 'Descriptor'
}
