import { callBack } from '@upcall/foundation/callback'
import type { Clock } from '@upcall/foundation/clock'
import { errnoOf, textOf } from '@upcall/foundation/error'
import { takePath } from '@upcall/foundation/unix-path'
import { type AcceptHandlers, type Acceptor, inheritedPlace, type Place } from '../acceptor.js'
import { asSeqpacket, formatAddress, guestInitiatedPath, type SeqpacketAddress, toSeqpacketAddress } from '../address.js'
import { type BindOptions, DEFAULT_BACKLOG, listenError } from '../bind.js'
import { abortedError, VsockError } from '../errors.js'
import { type InheritedSocket, type Inspection, isInherited, usedAlready } from '../inherited.js'
import type { Binding, Descriptor } from '../native/binding.js'
import { acceptFrom, type Listener } from '../native/listen.js'
import { setBufferSizes, type VsockOptions } from '../native/options.js'
import { AF_VSOCK, encodeSockaddrUn, encodeSockaddrVm } from '../native/sockaddr.js'
import { addressOf, explained, needBinding } from '../native/vsock.js'
import { trace } from '../trace.js'
import { SeqpacketSocket } from './socket.js'

export interface AcceptSeqpacketOptions extends BindOptions {
  readonly maxReceiveBytes?: number | undefined
  readonly clock?: Clock | undefined
  readonly vsock?: VsockOptions | undefined
}

/** As for streams. */
interface SeqpacketPlace extends Place {
  readonly local: SeqpacketAddress
}

/** @throws as `listenSeqpacket` does for its address. */
export function seqpacketPlaceOf(where: SeqpacketAddress | string | InheritedSocket, options: BindOptions): SeqpacketPlace {
  if (!isInherited(where)) return { local: toSeqpacketAddress(where) }
  const { local, inherited } = inheritedPlace(where, options, 'seqpacket')
  return { local: asSeqpacket(local), inherited }
}

/** A socket that listens, and how it is unbound. */
interface Bound {
  readonly address: SeqpacketAddress
  readonly path: string | undefined
  /** Removes the socket file. */
  release(): Promise<void>
}

/**
 * Binds an address. Connections wait in the backlog until `start`. The signal of the options gives up the binding; it may abort before the
 * caller has the acceptor.
 */
export async function openSeqpacketAcceptor(
  { local, inherited }: SeqpacketPlace,
  options: AcceptSeqpacketOptions,
): Promise<Acceptor<SeqpacketSocket>> {
  const { signal } = options
  if (signal?.aborted) throw abortedError('listen', local, signal.reason)
  const binding = needBinding('listen', { local })
  if (inherited) return openInherited(binding, local, inherited, options)
  const descriptor = opened(binding, local)
  try {
    const bound = await bind(binding, descriptor, local, options)
    trace({ type: 'listening', local: bound.address }, 'listen %s: listening', formatAddress(bound.address))
    return new SeqpacketAcceptor(binding, descriptor, bound, options)
  } catch (error) {
    binding.close(descriptor)
    throw error
  }
}

function openInherited(
  binding: Binding,
  local: SeqpacketAddress,
  { fd, listening }: Inspection,
  options: AcceptSeqpacketOptions,
): Acceptor<SeqpacketSocket> {
  const { vsock = {}, backlog = listening ? undefined : DEFAULT_BACKLOG } = options
  const descriptor = binding.inherit(fd)
  try {
    // Tells whether the event loop has it already.
    binding.watch(descriptor, binding.READABLE, () => {})
    binding.unwatch(descriptor)
    if (local.transport === 'vsock') setBufferSizes(binding, descriptor, vsock)
    if (backlog !== undefined) binding.listen(descriptor, backlog)
    const path = local.transport === 'vsock' ? undefined : local.path
    trace({ type: 'listening', local }, 'listen %s: listening', formatAddress(local))
    return new SeqpacketAcceptor(binding, descriptor, { address: local, path, release: async () => {} }, options)
  } catch (error) {
    // It is still the caller's.
    binding.release(descriptor)
    if (errnoOf(error) === 'EEXIST') throw usedAlready('listen', fd, error)
    throw local.transport === 'vsock' ? explained('listen', { local }, error) : listenError(local, error)
  }
}

function opened(binding: Binding, local: SeqpacketAddress): Descriptor {
  const native = local.transport === 'vsock'
  try {
    return binding.typedSocket(native ? AF_VSOCK : binding.AF_UNIX, binding.SOCK_SEQPACKET)
  } catch (error) {
    throw native ? explained('listen', { local }, error) : listenError(local, error)
  }
}

async function bind(
  binding: Binding,
  descriptor: Descriptor,
  local: SeqpacketAddress,
  options: AcceptSeqpacketOptions,
): Promise<Bound> {
  const { backlog = DEFAULT_BACKLOG, mode, vsock = {} } = options
  if (local.transport === 'vsock') {
    try {
      setBufferSizes(binding, descriptor, vsock)
      binding.bind(descriptor, encodeSockaddrVm(local))
      binding.listen(descriptor, backlog)
      const address = asSeqpacket(addressOf(binding.getsockname(descriptor)))
      return { address, path: undefined, release: async () => {} }
    } catch (error) {
      throw explained('listen', { local }, error)
    }
  }
  const path = local.transport === 'hvsock' ? guestInitiatedPath(local) : local.path
  return { address: local, path, release: await takeSocketPath(binding, descriptor, local, path, { backlog, mode }) }
}

/** Binds a socket to a path, which it takes over from a dead server, and listens. The result removes the path again. */
async function takeSocketPath(
  binding: Binding,
  descriptor: Descriptor,
  local: SeqpacketAddress,
  path: string,
  { backlog, mode }: { readonly backlog: number; readonly mode: number | undefined },
): Promise<() => Promise<void>> {
  try {
    return await takePath(path, {
      listen(name) {
        binding.bind(descriptor, encodeSockaddrUn(name))
        binding.listen(descriptor, backlog)
      },
      mode,
      taken: (what, next) => new VsockError({ code: 'EADDRINUSE', op: 'listen', local, what, next }),
    })
  } catch (error) {
    throw listenError(local, error)
  }
}

class SeqpacketAcceptor implements Acceptor<SeqpacketSocket> {
  readonly address: SeqpacketAddress
  readonly path: string | undefined
  readonly #binding: Binding
  readonly #descriptor: Descriptor
  readonly #bound: Bound
  readonly #options: AcceptSeqpacketOptions
  #referenced = true
  #listener: Listener | undefined
  #stopped: Promise<void> | undefined

  constructor(binding: Binding, descriptor: Descriptor, bound: Bound, options: AcceptSeqpacketOptions) {
    this.address = bound.address
    this.path = bound.path
    this.#binding = binding
    this.#descriptor = descriptor
    this.#bound = bound
    this.#options = options
  }

  start(handlers: AcceptHandlers<SeqpacketSocket>): void {
    const { address } = this
    const fail = (error: unknown, closed: boolean) => {
      const shown = explained('listen', { local: address }, error)
      trace(
        { type: 'accept-failed', local: address, error, closed },
        'listen %s: accepting failed: %s',
        formatAddress(address),
        textOf(error),
      )
      handlers.onError(shown, closed)
    }
    const { clock } = this.#options
    this.#listener = acceptFrom(
      this.#binding,
      this.#descriptor,
      (descriptor, peer) => this.#accepted(descriptor, peer),
      {
        onConnection: (socket) => callBack(handlers.onConnection, socket),
        onError: (error) => fail(error, true),
        onPause: (error) => fail(error, false),
      },
      clock && ((ms, fn) => clock.setTimer(ms, fn)),
    )
    if (!this.#referenced) this.#listener.unref()
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  ref(): void {
    this.#referenced = true
    this.#listener?.ref()
  }

  unref(): void {
    this.#referenced = false
    this.#listener?.unref()
  }

  async #stop(): Promise<void> {
    try {
      await this.#bound.release()
    } finally {
      if (this.#listener) this.#listener.close()
      else this.#binding.close(this.#descriptor)
      trace({ type: 'closed', local: this.address }, 'listen %s: closed', formatAddress(this.address))
    }
  }

  #accepted(descriptor: Descriptor, peer: Uint8Array): SeqpacketSocket {
    const { maxReceiveBytes, clock } = this.#options
    const ends =
      this.address.transport === 'vsock'
        ? { local: asSeqpacket(addressOf(this.#binding.getsockname(descriptor))), remote: asSeqpacket(addressOf(peer)) }
        : { local: this.address }
    trace({ type: 'accepted', ...ends }, 'listen %s: accepted', formatAddress(this.address))
    return new SeqpacketSocket({ binding: this.#binding, descriptor, ...ends, maxReceiveBytes, clock })
  }
}
