import type { Socket } from 'node:net'
import { adopt, type CreateSocket } from './adopt.js'
import type { Binding, Descriptor } from './binding.js'

export interface ConnectTarget {
  readonly family: number
  /** Default SOCK_STREAM. */
  readonly type?: number | undefined
  readonly sockaddr: Uint8Array
  /** Socket options, set before connecting. */
  readonly configure?: ((descriptor: Descriptor) => void) | undefined
}

export interface ConnectControl {
  /** Ends the attempt at once: the descriptor is closed and the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
  /** Whether a pending attempt keeps the process alive. Default true. */
  readonly ref?: boolean | undefined
  /** Gets a way to change that while the attempt is pending. The result says that it is over. */
  readonly hold?: ((attempt: { ref(): void; unref(): void }) => () => void) | undefined
}

/** One attempt. Rejects with the kernel's errno as a Node-style error; whatever was opened is closed by then. */
export function connectSocket<T extends Socket>(
  binding: Binding,
  target: ConnectTarget,
  create: CreateSocket<T>,
  control?: ConnectControl,
): Promise<T> {
  const take = (connection: Descriptor) => adopt(binding, connection, binding.placeholder(), undefined, create)
  return connectTo(binding, target, take, control)
}

/** The same; `take` makes something of the connected descriptor, before anything else happens. If it throws, the descriptor is closed. */
export function connectTo<T>(
  binding: Binding,
  { family, type, sockaddr, configure }: ConnectTarget,
  take: (connection: Descriptor) => T,
  { signal, ref = true, hold }: ConnectControl = {},
): Promise<T> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted()
    const connection = type === undefined ? binding.socket(family) : binding.typedSocket(family, type)

    const letGo = hold?.({ ref: () => binding.ref(connection), unref: () => binding.unref(connection) })
    const fail = (error: unknown) => {
      letGo?.()
      signal?.removeEventListener('abort', onAbort)
      binding.close(connection)
      reject(error)
    }
    const onAbort = () => fail(signal?.reason)
    const finish = () => {
      try {
        binding.finishConnect(connection)
        const taken = take(connection)
        letGo?.()
        signal?.removeEventListener('abort', onAbort)
        resolve(taken)
      } catch (error) {
        fail(error)
      }
    }

    try {
      configure?.(connection)
      if (!ref) binding.unref(connection)
      if (binding.connect(connection, sockaddr)) return finish()
      binding.watch(connection, binding.WRITABLE, finish)
      signal?.addEventListener('abort', onAbort)
    } catch (error) {
      fail(error)
    }
  })
}
