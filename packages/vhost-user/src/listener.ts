import { randomBytes } from 'node:crypto'
import { link, lstat, rename, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { VsockDeviceError } from './errors.js'
import type { Binding, Descriptor } from './native/binding.js'

/** Longest path of a Unix socket in Linux, without its final zero. */
export const UNIX_PATH_MAX = 107

/** `struct sockaddr_un` in bytes. */
export function unixAddress(binding: Binding, path: string): Uint8Array {
  const name = Buffer.from(path)
  if (name.length === 0 || name.length > UNIX_PATH_MAX || name.includes(0)) {
    throw new RangeError(`socketPath has ${name.length} bytes; 1 to ${UNIX_PATH_MAX}, none of them zero, are allowed: ${path}`)
  }
  const bytes = Buffer.alloc(2 + name.length + 1)
  bytes.writeUInt16LE(binding.AF_UNIX, 0)
  name.copy(bytes, 2)
  return bytes
}

/** Somewhere that VMMs connect to. */
export interface Listener {
  /** Stops listening and removes the socket file, if it is still ours. Twice is once. */
  close(): Promise<void>
}

/**
 * Listens on `path`. The socket is bound under another name and linked into place, so that whoever sees the file can connect; a file
 * that a dead process left is replaced, one that is in use is refused (`EADDRINUSE`).
 */
export async function listenUnix(
  binding: Binding,
  path: string,
  onConnection: (descriptor: Descriptor) => void,
): Promise<Listener> {
  unixAddress(binding, path)
  const ownName = join(dirname(path), `.${randomBytes(4).toString('hex')}`)
  const descriptor = binding.socket(binding.AF_UNIX)
  try {
    binding.bind(descriptor, unixAddress(binding, ownName))
    try {
      binding.listen(descriptor, 8)
      const { ino, dev } = await lstat(ownName)
      await place(binding, ownName, path)
      binding.watch(descriptor, binding.READABLE, () => acceptAll(binding, descriptor, onConnection))
      return {
        close: async () => {
          binding.close(descriptor)
          const found = await lstat(path).catch(() => undefined)
          if (found?.ino === ino && found.dev === dev) await unlink(path).catch(() => {})
        },
      }
    } finally {
      await unlink(ownName).catch(() => {})
    }
  } catch (error) {
    binding.close(descriptor)
    throw error
  }
}

function acceptAll(binding: Binding, listener: Descriptor, onConnection: (descriptor: Descriptor) => void): void {
  for (;;) {
    let accepted: ReturnType<Binding['accept']>
    try {
      accepted = binding.accept(listener)
    } catch {
      // Out of descriptors or memory: the VMM stays in the backlog, and readiness, being level-triggered, brings us back.
      return
    }
    if (accepted === undefined) return
    onConnection(accepted.descriptor)
  }
}

async function place(binding: Binding, from: string, path: string): Promise<void> {
  try {
    await link(from, path)
    return
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  const inUse = (what: string) =>
    new VsockDeviceError({ code: 'EADDRINUSE', subject: `listen ${path}`, what, next: 'stop its owner, or choose another path' })
  if (!(await lstat(path)).isSocket()) throw inUse('there is something that is not a socket')
  try {
    binding.close(binding.connect(unixAddress(binding, path)))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error
    return rename(from, path)
  }
  throw inUse('another process listens there')
}
