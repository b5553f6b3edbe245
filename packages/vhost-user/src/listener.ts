import { AcceptPause, type Sleep } from '@upcall/foundation/addon/accept-pause'
import { checkString, wrongValue } from '@upcall/foundation/check'
import { takePath } from '@upcall/foundation/unix-path'
import { VsockDeviceError } from './errors.js'
import type { Binding, Descriptor } from './native/binding.js'

const BACKLOG = 8

/** @throws TypeError, RangeError unless it is the path of a file. */
export function checkSocketPath(path: string): void {
  checkString('socketPath', path, 'a path')
  if (path === '' || path.includes('\0')) wrongValue('socketPath', 'a path without a zero byte', path)
}

/** `struct sockaddr_un` in bytes. `path` is short enough: see foundation's `withShortPath`. */
export function unixAddress(binding: Binding, path: string): Uint8Array {
  const name = Buffer.from(path)
  const bytes = Buffer.alloc(2 + name.length + 1)
  bytes.writeUInt16LE(binding.AF_UNIX, 0)
  name.copy(bytes, 2)
  return bytes
}

/** A path that VMMs connect to. */
export interface Listener {
  /** Stops listening and removes the socket file, if it is still ours. Idempotent. */
  close(): Promise<void>
}

export interface ListenerHandlers {
  readonly onConnection: (descriptor: Descriptor) => void
  /** Out of descriptors or memory: the VMM waits in the backlog, the next try is in `delayMs`. */
  readonly onPause?: ((error: unknown, delayMs: number) => void) | undefined
}

/** Listens on `path`. The file of a dead process is replaced; a path that is in use is refused (`EADDRINUSE`). */
export async function listenUnix(
  binding: Binding,
  path: string,
  handlers: ListenerHandlers,
  sleep: Sleep = systemSleep,
): Promise<Listener> {
  const descriptor = binding.socket(binding.AF_UNIX)
  try {
    const remove = await takePath(path, {
      listen: (name) => {
        binding.bind(descriptor, unixAddress(binding, name))
        binding.listen(descriptor, BACKLOG)
      },
      taken: (what, next) => new VsockDeviceError({ code: 'EADDRINUSE', op: 'listen', subject: path, what, next }),
    })
    const stop = acceptFrom(binding, descriptor, handlers, sleep)
    return {
      close: async () => {
        stop()
        // A file that cannot be removed stays, and the next server takes its place.
        await remove().catch(() => {})
        binding.close(descriptor)
      },
    }
  } catch (error) {
    binding.close(descriptor)
    throw error
  }
}

/** Accepts every connection, until the returned function is called. */
function acceptFrom(
  binding: Binding,
  listener: Descriptor,
  { onConnection, onPause }: ListenerHandlers,
  sleep: Sleep,
): () => void {
  let stopped = false
  const pause = new AcceptPause(sleep)
  const watch = () => binding.watch(listener, binding.READABLE, acceptAll)
  const acceptAll = () => {
    while (!stopped) {
      let accepted: ReturnType<Binding['accept']>
      try {
        accepted = binding.accept(listener)
      } catch (error) {
        binding.unwatch(listener)
        onPause?.(error, pause.begin(watch))
        return
      }
      if (accepted === undefined) return
      pause.reset()
      onConnection(accepted.descriptor)
    }
  }
  watch()
  return () => {
    stopped = true
    pause.cancel()
    binding.unwatch(listener)
  }
}

/** It keeps the process alive, as listening does. */
function systemSleep(ms: number, fn: () => void): () => void {
  const timer = setTimeout(fn, ms)
  return () => clearTimeout(timer)
}
