import { EventEmitter } from 'node:events'
import { onAbort } from '@upcall/foundation/abort'
import { checkObject, checkSignal, wrongType } from '@upcall/foundation/check'
import { errnoOf } from '@upcall/foundation/error'
import { toAddress, type VsockAddress } from './address.js'
import { abortedError, VsockError, type VsockOperation } from './errors.js'
import type { Binding, Descriptor } from './native/binding.js'
import { explain } from './native/errno.js'
import { AF_VSOCK, decodeSockaddrVm, encodeSockaddrVm } from './native/sockaddr.js'
import { addressOf, needBinding } from './native/vsock.js'

/** Who sent a datagram. */
export interface DatagramInfo {
  readonly cid: number
  readonly port: number
  /** Its length in bytes. */
  readonly size: number
}

export interface VsockDatagramEvents {
  /** The bytes belong to the listener. */
  message: [data: Uint8Array, from: DatagramInfo]
  /** Receiving failed, and the socket has closed. Thrown if there is no listener for it. */
  error: [error: Error]
  close: []
}

export interface BindDatagramOptions {
  /** Closes the socket; before it is bound, `bindDatagram` rejects with code `ABORTED`. */
  signal?: AbortSignal | undefined
}

/** What VMware's transport carries: 68 KiB, the header of 24 bytes included. */
const LONGEST = 68 * 1024 - 24
/** Datagrams that are received in one go before other work gets its turn. */
const BATCH = 64

/**
 * Binds a datagram socket of AF_VSOCK to `vsock://<cid>:<port>`; both may be `any`.
 *
 * Of Linux's transports only VMware's VMCI has datagrams. Where its modules are loaded (`vmw_vmci` and `vmw_vsock_vmci_transport`), datagrams to
 * CID 2 are delivered on the same machine, without VMware, too.
 *
 * @throws {AddressError} for an address that is not `vsock://`; {TypeError} for an option that is wrong.
 * @throws {VsockError} `EOPNOTSUPP` where no transport has datagrams, virtio for one; `EADDRINUSE`, `EACCES`, `ABORTED`, `ENOTSUP` (no addon),
 *   or the kernel's errno.
 */
export async function bindDatagram(
  address: VsockAddress | string,
  options: BindDatagramOptions = {},
): Promise<VsockDatagramSocket> {
  checkObject('options', options)
  const { signal } = options
  checkSignal(signal)
  const local = vsockAddress(address)
  if (signal?.aborted) throw abortedError('bind', local, signal.reason)
  const binding = needBinding('bind', { local })
  let descriptor: Descriptor | undefined
  try {
    descriptor = binding.typedSocket(AF_VSOCK, binding.SOCK_DGRAM)
    binding.bind(descriptor, encodeSockaddrVm(local))
    const socket = new VsockDatagramSocket(binding, descriptor, addressOf(binding.getsockname(descriptor)))
    socket.once(
      'close',
      onAbort(signal, () => socket.close()),
    )
    return socket
  } catch (cause) {
    if (descriptor) binding.close(descriptor)
    throw bindError(local, cause)
  }
}

/** A bound datagram socket of AF_VSOCK, in the shape of `node:dgram`. A datagram may be lost, and nothing tells. */
export class VsockDatagramSocket extends EventEmitter<VsockDatagramEvents> implements Disposable {
  /** What it is bound to: with the port that the kernel chose, if any port was asked for. */
  readonly address: VsockAddress
  readonly #binding: Binding
  readonly #descriptor: Descriptor
  #closed = false

  /** @internal Made by `bindDatagram`. */
  constructor(binding: Binding, descriptor: Descriptor, address: VsockAddress) {
    super()
    this.#binding = binding
    this.#descriptor = descriptor
    this.address = address
    this.#watch()
  }

  /**
   * Hands one datagram to the kernel, which delivers it at once or not at all. It may be empty.
   *
   * @throws {VsockError} `EMSGSIZE` beyond 69608 bytes, `EHOSTUNREACH` where no socket has the port, `EINVAL` for a CID that datagrams do not
   *   reach, `EAGAIN` where the kernel has no room, `EBADF` after `close`, or the kernel's errno.
   */
  send(data: Uint8Array, to: VsockAddress | string): void {
    if (!(data instanceof Uint8Array)) wrongType('data', 'a Uint8Array', data)
    const remote = vsockAddress(to)
    try {
      if (this.#binding.sendMessage(this.#descriptor, data, false, encodeSockaddrVm(remote))) return
    } catch (cause) {
      throw sendError(remote, errnoOf(cause), cause)
    }
    throw sendError(remote, 'EAGAIN')
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#binding.close(this.#descriptor)
    // As node:dgram does it.
    process.nextTick(() => this.emit('close'))
  }

  /** Keeps the process alive while it is open, which is the default. */
  ref(): this {
    this.#binding.ref(this.#descriptor)
    return this
  }

  /** Lets the process exit although the socket is open. */
  unref(): this {
    this.#binding.unref(this.#descriptor)
    return this
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #watch(): void {
    const { READABLE } = this.#binding
    this.#binding.watch(this.#descriptor, READABLE, (events) => {
      // An error has ended the watch; recvmsg tells it.
      if (events === 0) setImmediate(() => this.#closed || this.#watch())
      this.#receive()
    })
  }

  #receive(): void {
    for (let i = 0; i < BATCH && !this.#closed; i++) {
      let message: ReturnType<Binding['receiveMessage']>
      try {
        message = this.#binding.receiveMessage(this.#descriptor, LONGEST)
      } catch (cause) {
        this.close()
        const code = errnoOf(cause)
        const what = `receiving failed (${code})`
        this.emit('error', new VsockError({ code, op: 'receive', local: this.address, what, next: 'See the cause.', cause }))
        return
      }
      if (message?.from === undefined) return
      const { cid, port } = decodeSockaddrVm(message.from)
      this.emit('message', message.bytes, { cid, port, size: message.length })
    }
  }
}

function vsockAddress(address: VsockAddress | string): VsockAddress {
  const checked = toAddress(address)
  if (checked.transport === 'vsock') return checked
  return wrongType('address', 'vsock://<cid>:<port>', address)
}

function bindError(local: VsockAddress, cause: unknown): VsockError {
  const errno = errnoOf(cause)
  // socket(2) where no transport has datagrams.
  if (errno === 'ENODEV' || errno === 'EOPNOTSUPP' || errno === 'ESOCKTNOSUPPORT') {
    const what = `no vsock transport of this kernel carries datagrams (${errno})`
    const next =
      "Only VMware's does (modules vmw_vmci and vmw_vsock_vmci_transport); virtio does not. For messages there is connectSeqpacket(), for streams connect()."
    return new VsockError({ code: 'EOPNOTSUPP', op: 'bind', local, what, next, cause })
  }
  return new VsockError({ ...explain('listen', errno), op: 'bind', local, cause })
}

const WORDS: Readonly<Record<string, readonly [what: string, next: string]>> = {
  EMSGSIZE: [`a datagram has at most ${LONGEST} bytes`, 'Send less, or use connectSeqpacket().'],
  EHOSTUNREACH: ['no socket has that port', 'Bind it first.'],
  EINVAL: ['datagrams do not reach that CID', 'On the same machine, and from a guest to its host, the CID is 2.'],
  EAGAIN: ['the kernel has no room for it now', 'Send it again later.'],
  EBADF: ['the socket is closed', 'Bind another one.'],
}

function sendError(remote: VsockAddress, code: string, cause?: unknown): VsockError {
  const op: VsockOperation = 'send'
  const [what, next] = WORDS[code] ?? ['the kernel refused it', 'See the cause.']
  const retryable = code === 'EAGAIN' || code === 'EHOSTUNREACH'
  return new VsockError({ code, op, remote, what: `${what} (${code})`, next, retryable, cause })
}
