import type { Duplex } from 'node:stream'
import type { Clock } from '@upcall/vsock'

export interface ComplianceConnectOptions {
  signal?: AbortSignal | undefined
  /** Deadline of the connecting, in milliseconds on `clock`. */
  timeoutMs?: number | undefined
  clock?: Clock | undefined
}

/** Listens on one address. Iterating yields each connection once; leaving the loop does not close the listener. */
export interface ComplianceListener<A> extends AsyncIterable<Duplex> {
  /** What to connect to. */
  readonly address: A
  /** Stops listening and frees the address; iterations end. */
  close(): Promise<void>
}

/** The abilities of a transport. Its suite leaves out the tests of abilities that it lacks. */
export interface ComplianceFeatures {
  /** EOF in one direction leaves the other direction open. */
  halfClose: boolean
  /** Streams are `net.Socket`s: they keep the process alive until `unref()`. */
  netSocket: boolean
  /** Connections use file descriptors of this process, which the suite may count. */
  descriptors: boolean
}

/** A transport as the suite sees it. Errors have a `code`: ECONNREFUSED, ETIMEDOUT, EADDRINUSE, and ABORTED with the reason as `cause`. */
export interface ComplianceTransport<A> {
  readonly name: string
  readonly features: ComplianceFeatures
  /** Listens on the address given, otherwise on a fresh one. */
  listen(options: { address?: A | undefined; signal?: AbortSignal | undefined }): Promise<ComplianceListener<A>>
  connect(address: A, options: ComplianceConnectOptions): Promise<Duplex>
  /** An address without a listener. */
  vacant(): Promise<{ address: A; close(): Promise<void> }>
  /**
   * An address where connecting begins and never ends. `reached` resolves when a connection has begun. Undefined where that cannot
   * happen: connecting to a Unix socket succeeds before the listener accepts.
   */
  mute?: (() => Promise<{ address: A; reached: Promise<void>; close(): Promise<void> }>) | undefined
  /** What `remote` of a connected stream is expected to be, by deepEqual. Undefined: it has none. */
  expectedRemote?: ((address: A) => unknown) | undefined
  /** What `local` of an accepted stream is expected to be, by deepEqual. Undefined: it has none. */
  expectedLocal?: ((address: A) => unknown) | undefined
  /** Removes the files that the transport has made. */
  dispose?(): Promise<void>
}
