import { Socket } from 'node:net'
import type { Clock } from '@upcall/foundation/clock'
import { errnoOf } from '@upcall/foundation/error'
import { type Address, Cid, type VsockAddress } from '../address.js'
import { isVsockError, VsockError, type VsockOperation } from '../errors.js'
import type { Dialled } from '../handle.js'
import { usedAlready } from '../inherited.js'
import type { Life, Referable } from '../life.js'
import { VsockSocket } from '../socket.js'
import { adopt } from './adopt.js'
import type { Binding, Descriptor } from './binding.js'
import { type ConnectControl, connectTo } from './connect.js'
import { explain } from './errno.js'
import { type ListenHandlers, listenSocket } from './listen.js'
import { AddonError, loadBinding } from './loader.js'
import { checkVsockOptions, setBufferSizes, setConnectTimeout, type VsockConnectOptions, type VsockOptions } from './options.js'
import { AF_VSOCK, decodeSockaddrVm, encodeSockaddrVm } from './sockaddr.js'

export interface NativeConnectOptions {
  /** Ends the attempt, which rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
  /** How long the kernel waits for an answer. Default 2000 ms, the kernel's. */
  readonly timeoutMs?: number | undefined
  /** Whether the attempt keeps the process alive. */
  readonly life?: Life | undefined
  readonly vsock?: VsockConnectOptions | undefined
}

export interface NativeListenOptions {
  readonly halfClose: boolean
  readonly allowHalfOpen: boolean
  readonly lingerMs?: number | undefined
  readonly clock?: Clock | undefined
  /** undefined for an inherited socket that listens. */
  readonly backlog: number | undefined
  /** In place of binding the address: the descriptor of a socket that is bound to it. */
  readonly inherited?: number | undefined
  readonly vsock?: VsockOptions | undefined
}

export interface NativeListenHandlers {
  readonly onConnection: (socket: VsockSocket) => void
  /** Accepting failed. With `closed` the listener is closed; otherwise connections wait in the backlog until the next try. */
  readonly onError: (error: VsockError, closed: boolean) => void
}

export interface NativeListener {
  /** With the port the kernel chose, if any was asked for. */
  readonly address: VsockAddress
  ref(): void
  unref(): void
  close(): void
}

/** One attempt over AF_VSOCK. Rejects with the signal's reason or with a `VsockError`, after everything that it opened is closed. */
export function connectNative(remote: VsockAddress, options: NativeConnectOptions): Promise<Dialled> {
  const { life } = options
  const hold = life && ((each: Referable) => life.hold(each))
  return connectNativeWith(remote, { ...options, hold }, (binding, connection, local) => {
    const create = (fd: number) => new Socket({ fd, readable: true, writable: true, allowHalfOpen: true })
    const carrier = adopt(binding, connection, binding.placeholder(), undefined, create)
    return { carrier, local, greeting: Buffer.alloc(0), replyBytes: 0, commandBytes: 0 }
  })
}

export interface NativeAttempt extends Pick<NativeConnectOptions, 'signal' | 'timeoutMs' | 'vsock'> {
  /** Default SOCK_STREAM. */
  readonly type?: 'SOCK_SEQPACKET' | undefined
  readonly hold?: ConnectControl['hold']
}

/** The same, for a socket of any type: `take` makes something of the connected descriptor. `local` is the address that the peer sees. */
export async function connectNativeWith<T>(
  remote: VsockAddress,
  { signal, timeoutMs, hold, vsock = {}, type }: NativeAttempt,
  take: (binding: Binding, connection: Descriptor, local: VsockAddress) => T,
): Promise<T> {
  checkVsockOptions(vsock)
  const binding = needBinding('connect', { remote })
  const target = {
    family: AF_VSOCK,
    type: type && binding[type],
    sockaddr: encodeSockaddrVm({ cid: remote.cid, port: remote.port, toHost: vsock.toHost }),
    configure(descriptor: Descriptor) {
      setBufferSizes(binding, descriptor, vsock)
      if (timeoutMs !== undefined) setConnectTimeout(binding, descriptor, timeoutMs)
    },
  }
  const connected = (connection: Descriptor) =>
    take(binding, connection, seenByPeer(binding, addressOf(binding.getsockname(connection)), remote))
  try {
    return await connectTo(binding, target, connected, { signal, hold })
  } catch (error) {
    if (signal?.aborted && error === signal.reason) throw error
    throw explained('connect', { remote }, error)
  }
}

/** @throws {VsockError} with the kernel's errno explained; nothing stays open then. */
export function listenNative(local: VsockAddress, options: NativeListenOptions, handlers: NativeListenHandlers): NativeListener {
  const { halfClose, allowHalfOpen, lingerMs, clock, backlog, inherited, vsock = {} } = options
  checkVsockOptions(vsock)
  const binding = needBinding('listen', { local })
  const target = {
    family: AF_VSOCK,
    sockaddr: encodeSockaddrVm(local),
    backlog,
    inherited,
    configure: (descriptor: Descriptor) => setBufferSizes(binding, descriptor, vsock),
  }
  const handle: ListenHandlers<VsockSocket> = {
    create(fd, names) {
      const addresses = { local: addressOf(names.local), remote: addressOf(names.remote) }
      return new VsockSocket({ ...addresses, halfClose, lingerMs, clock }, { fd, readable: true, writable: true, allowHalfOpen })
    },
    onConnection: handlers.onConnection,
    onError: (error) => handlers.onError(explained('listen', { local }, error), true),
    onPause: (error) => handlers.onError(explained('listen', { local }, error), false),
  }
  try {
    const listener = listenSocket(binding, target, handle, clock && ((ms, fn) => clock.setTimer(ms, fn)))
    return {
      address: addressOf(listener.local),
      ref: () => listener.ref(),
      unref: () => listener.unref(),
      close: () => listener.close(),
    }
  } catch (error) {
    if (inherited !== undefined && errnoOf(error) === 'EEXIST') throw usedAlready('listen', inherited, error)
    throw explained('listen', { local }, error)
  }
}

/**
 * This machine's context id: a guest's own, 2 on a host, 1 where there is only loopback (older kernels have none then).
 *
 * @throws {VsockError} `ENODEV` where no transport gives it one, `ENOTSUP` without the addon, `ENOENT` without /dev/vsock, `EACCES` without permission to open it.
 */
export function localCid(): number {
  const binding = needBinding('localCid', {})
  try {
    const cid = ownCid(binding)
    if (cid !== undefined) return cid
  } catch (cause) {
    const code = errnoOf(cause)
    const next =
      {
        ENOENT: "Load the module vsock and a transport (vhost_vsock, vsock_loopback, or the VM's vsock device).",
        EACCES: 'This process needs read permission on /dev/vsock.',
        EPERM: 'This process needs read permission on /dev/vsock.',
      }[code] ?? 'See the cause.'
    throw new VsockError({ code, op: 'localCid', what: `/dev/vsock cannot be asked (${code})`, next, cause })
  }
  const { next } = explain('listen', 'ENODEV')
  throw new VsockError({
    ...{ code: 'ENODEV', op: 'localCid', what: 'this machine has no CID' },
    next: `${next} A guest of Hyper-V has none, and needs none.`,
  })
}

/** undefined where this machine has no CID: the kernel says VMADDR_CID_ANY. */
function ownCid(binding: Binding): number | undefined {
  const cid = binding.localCid() >>> 0
  return cid === Cid.any ? undefined : cid
}

/**
 * The kernel binds a connecting socket to any CID and never says more. This is the CID that the peer sees: 1 over loopback, which also
 * serves this machine's own CID.
 */
function seenByPeer(binding: Binding, local: VsockAddress, remote: VsockAddress): VsockAddress {
  if (local.cid !== Cid.any) return local
  const own = tryLocalCid(binding)
  const cid = remote.cid === Cid.local || remote.cid === own ? Cid.local : (own ?? Cid.any)
  return Object.freeze({ ...local, cid })
}

function tryLocalCid(binding: Binding): number | undefined {
  try {
    return ownCid(binding)
  } catch {
    // Not readable for this user, for example: then only the local CID stays unknown.
    return undefined
  }
}

export function addressOf(sockaddr: Uint8Array): VsockAddress {
  const { cid, port } = decodeSockaddrVm(sockaddr)
  return Object.freeze({ transport: 'vsock', cid, port })
}

type Ends = { readonly local?: Address; readonly remote?: Address }

/** The addon. @throws {VsockError} `ENOTSUP` where there is none. */
export function needBinding(op: VsockOperation, ends: Ends): Binding {
  try {
    return loadBinding()
  } catch (error) {
    if (!(error instanceof AddonError)) throw error
    throw new VsockError({ code: 'ENOTSUP', op, ...ends, what: error.what, next: error.next ?? 'See the cause.', cause: error })
  }
}

/** An errno of AF_VSOCK as the caller reads it. */
export function explained(op: 'connect' | 'listen', ends: Ends, cause: unknown): VsockError {
  if (isVsockError(cause)) return cause
  return new VsockError({ ...explain(op, errnoOf(cause)), op, ...ends, cause })
}
