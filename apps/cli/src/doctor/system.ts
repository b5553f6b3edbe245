import type { Address } from '@upcall/vsock'

/** What the checks may ask of this machine. Each question is bounded by the signal, and answers with data instead of throwing. */
export interface System {
  readonly node: { version: string; platform: string; arch: string; libc: string }
  /** The release of the kernel, as `uname -r` says it. */
  readonly kernel: string
  readonly user: { uid: number | undefined; groups: readonly number[] }
  /** undefined if the file is missing or cannot be read. */
  read(path: string): Promise<string | undefined>
  exists(path: string): Promise<boolean>
  stat(path: string): Promise<Stat | Failed>
  /** Whether this process may read and write. */
  mayUse(path: string): Promise<boolean>
  /** undefined if there is no such program. */
  run(program: string, args: readonly string[]): Promise<{ status: number | null; text: string } | undefined>
  addon(name: 'vsock' | 'vhost-user'): Promise<{ path?: string } | AddonFailed>
  /** Binds an AF_VSOCK socket to a port of this CID, and closes it. Nothing is connected. */
  bindVsock(cid: 'any' | 'local'): Promise<Failed | undefined>
  /** Connects to a Unix socket, and closes the connection. */
  connectUnix(path: string): Promise<Failed | undefined>
  /** Connects to a guest over a Unix socket, up to the greeting of its upcall service. */
  greet(target: Address): Promise<Greeted>
}

export interface Stat {
  kind: 'socket' | 'device' | 'folder' | 'file'
  /** The permission bits. */
  mode: number
  uid: number
  gid: number
}

export interface Failed {
  /** An errno's name, or a code of the package's errors. */
  code: string
  what: string
  next?: string | undefined
}

export interface AddonFailed extends Failed {
  /** A file is there, and does not load. */
  broken: boolean
}

export interface Greeted {
  /** The VMM, or the socket, gave a connection to the guest's port. */
  connected: boolean
  error?: Failed
}
