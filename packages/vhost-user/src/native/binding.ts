import type { SocketBinding } from '@upcall/foundation/addon/binding'
import type { Descriptor as SessionDescriptor } from '../machine/memory-table.js'

/** What this package's addon exports: what every addon has, descriptors that travel, eventfds and mapped memory. */
export interface Binding extends SocketBinding<Descriptor> {
  /**
   * Up to `length` bytes and the descriptors beside them. No bytes: the end of the stream. Undefined: nothing there yet.
   * EMSGSIZE: more than eight descriptors came, and all are closed.
   */
  receive(descriptor: Descriptor, length: number): { bytes: Uint8Array; descriptors: Descriptor[] } | undefined
  /** How many bytes went, with the descriptors; undefined: none, wait until it is writable. */
  send(descriptor: Descriptor, bytes: Uint8Array, descriptors: readonly Descriptor[]): number | undefined
  /** For `watch`: nothing but errors and hang-ups, on a socket that has no urgent data. */
  readonly PRIORITIZED: number
  /** Reads an eventfd down to zero. Throws if the descriptor is not an eventfd. */
  drain(descriptor: Descriptor): void
  /** Adds one to an eventfd. */
  signal(descriptor: Descriptor): void

  /** Another descriptor of an open socket, given by its number. */
  duplicate(fd: number): Descriptor
  /**
   * Receives into `count` pieces of memory, without waiting. A piece is three numbers: the index of a window, where in the window it
   * begins, and its length. The result is how many bytes came; 0: the stream has ended; -1: nothing there yet.
   */
  readInto(descriptor: Descriptor, windows: readonly Uint8Array[], pieces: Uint32Array, count: number): number
  /** The other way. The result is how many bytes went; -1: none, the socket is full. */
  writeFrom(descriptor: Descriptor, windows: readonly Uint8Array[], pieces: Uint32Array, count: number): number

  /**
   * Maps `size` bytes from `offset` of a file: window i begins `i * step` bytes into them and is `length` long, or to the end.
   * EINVAL: the file is shorter.
   */
  map(descriptor: Descriptor, offset: number, size: number, step: number, length: number): Mapped
  /** Detaches every window and unmaps. Idempotent. */
  unmap(mapping: Mapping): void
}

/** What a front end needs besides: the same addon has it. */
export interface FrontEndBinding extends Binding {
  /** A connected AF_UNIX stream; answers at once. */
  connect(sockaddr: Uint8Array): Descriptor
  /** A new memory file of `size` bytes. */
  memfd(size: number): Descriptor
  eventfd(): Descriptor
}

/** The version of `Binding` this package was written for. */
export const API_VERSION = 2

declare const brand: unique symbol

/** Owns one file descriptor. Closed by `close`, by the garbage collector or with the thread, whichever is first. */
export interface Descriptor extends SessionDescriptor {
  readonly [brand]: 'Descriptor'
}

export interface Mapping {
  readonly [brand]: 'Mapping'
}

export interface Mapped {
  readonly mapping: Mapping
  readonly windows: ArrayBuffer[]
}
