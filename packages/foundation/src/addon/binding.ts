/**
 * What every addon of this repository exports (the C beside this file): one function per system call, and readiness. Functions throw
 * Node-style errors (`code`, negative `errno`, `syscall`); wrong arguments throw a TypeError.
 */
export interface SocketBinding<Descriptor> {
  /** Changes with every change of the package's binding. */
  readonly API_VERSION: number

  readonly READABLE: number
  readonly WRITABLE: number
  readonly AF_UNIX: number

  /** A stream socket, non-blocking and close-on-exec. */
  socket(family: number): Descriptor
  bind(descriptor: Descriptor, sockaddr: Uint8Array): void
  listen(descriptor: Descriptor, backlog: number): void
  /** The next connection, or undefined if no connection waits. Connections that died in the queue are left out. */
  accept(descriptor: Descriptor): { descriptor: Descriptor; peer: Uint8Array } | undefined

  /**
   * Calls back on each readiness until `unwatch` or `close`. `events` 0 stands for an error condition: watching has ended then. A
   * second `watch` replaces the first.
   */
  watch(descriptor: Descriptor, events: number, callback: (events: number) => void): void
  unwatch(descriptor: Descriptor): void
  ref(descriptor: Descriptor): void
  unref(descriptor: Descriptor): void
  /** Also a closed one. */
  close(descriptor: Descriptor): void
}
