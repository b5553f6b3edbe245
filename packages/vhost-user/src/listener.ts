import { createHash, randomBytes } from 'node:crypto'
import { link, lstat, open, stat, unlink } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AcceptPause, type Sleep } from '@upcall/foundation/addon/accept-pause'
import { VsockDeviceError } from './errors.js'
import type { Binding, Descriptor } from './native/binding.js'

/** Longest path of a Unix socket in Linux, without its final zero. */
const UNIX_PATH_MAX = 107

const LOCK_WAIT_MS = 2_000

/** The path's bytes. @throws RangeError unless a socket can have it. */
export function socketName(path: string): Buffer {
  if (typeof path !== 'string') throw new RangeError(`socketPath is ${String(path)}; a path is allowed`)
  const name = Buffer.from(path)
  if (name.length === 0 || name.length > UNIX_PATH_MAX || name.includes(0)) {
    throw new RangeError(`socketPath has ${name.length} bytes; 1 to ${UNIX_PATH_MAX}, none of them zero, are allowed: ${path}`)
  }
  return name
}

/** `struct sockaddr_un` in bytes. */
export function unixAddress(binding: Binding, path: string): Uint8Array {
  const name = socketName(path)
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

export interface ListenerHandlers {
  readonly onConnection: (descriptor: Descriptor) => void
  /** Out of descriptors or memory: the VMM waits in the backlog, the next try is in `delayMs`. */
  readonly onPause?: ((error: unknown, delayMs: number) => void) | undefined
}

/**
 * Listens on `path`. The socket is bound under another name and linked into place, so that whoever sees the file can connect; a file
 * that a dead process left is replaced, one that is in use is refused (`EADDRINUSE`).
 */
export async function listenUnix(
  binding: Binding,
  path: string,
  handlers: ListenerHandlers,
  sleep: Sleep = systemSleep,
): Promise<Listener> {
  unixAddress(binding, path)
  // Through a descriptor of the directory, so that a path is not too long for the sake of a name that nobody will see.
  const directory = await open(dirname(path), 'r')
  const ownName = `/proc/self/fd/${directory.fd}/.${randomBytes(4).toString('hex')}`
  const descriptor = binding.socket(binding.AF_UNIX)
  try {
    binding.bind(descriptor, unixAddress(binding, ownName))
    try {
      binding.listen(descriptor, 8)
      const { ino, dev } = await lstat(ownName)
      await place(binding, ownName, path)
      const stop = acceptFrom(binding, descriptor, handlers, sleep)
      return {
        close: async () => {
          stop()
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
  } finally {
    await directory.close()
  }
}

/** Accepts whoever comes, until the returned function is called. */
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
  }
}

/** It keeps the process alive, as listening does. */
function systemSleep(ms: number, fn: () => void): () => void {
  const timer = setTimeout(fn, ms)
  return () => clearTimeout(timer)
}

/**
 * Links the socket to its path, which is atomic and fails if the path exists. Then one starter at a time looks at what is there: while
 * it holds the lock, nobody else can take a dead server's file for his own live one.
 */
async function place(binding: Binding, from: string, path: string): Promise<void> {
  if (await linked(from, path)) return
  const unlock = await lock(binding, path)
  try {
    do await removeStale(binding, path)
    while (!(await linked(from, path)))
  } finally {
    unlock()
  }
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if (errno(error) === 'EEXIST') return false
    throw error
  }
}

async function removeStale(binding: Binding, path: string): Promise<void> {
  try {
    if (!(await lstat(path)).isSocket()) throw inUse(path, 'there is something that is not a socket')
    binding.close(binding.connect(unixAddress(binding, path)))
  } catch (error) {
    if (errno(error) === 'ENOENT') return
    // Anything but a refusal leaves open whether somebody lives there: EAGAIN is a full backlog.
    if (errno(error) !== 'ECONNREFUSED') throw errno(error) === 'EAGAIN' ? inUse(path, 'another process listens there') : error
    return unlink(path).catch((failure) => {
      if (errno(failure) !== 'ENOENT') throw failure
    })
  }
  throw inUse(path, 'another process listens there')
}

/**
 * One starter at a time per path, by holding an abstract socket's name: binding it is atomic, and the kernel lets go of it when the
 * process dies, so that no lock is left behind.
 */
export async function lock(binding: Binding, path: string): Promise<() => void> {
  const { dev, ino } = await stat(dirname(path))
  const key = createHash('sha256')
    .update(`${dev}:${ino}:${basename(path)}`)
    .digest('hex')
  const name = Buffer.from(`\0\0\0upcall-vhost-user-${key.slice(0, 32)}`)
  name.writeUInt16LE(binding.AF_UNIX, 0)
  const deadline = performance.now() + LOCK_WAIT_MS
  const descriptor = binding.socket(binding.AF_UNIX)
  for (;;) {
    try {
      binding.bind(descriptor, name)
      return () => binding.close(descriptor)
    } catch (error) {
      if (errno(error) === 'EADDRINUSE' && performance.now() < deadline) {
        await delay(5)
        continue
      }
      binding.close(descriptor)
      throw errno(error) === 'EADDRINUSE' ? inUse(path, 'another process is starting there') : error
    }
  }
}

const errno = (error: unknown): unknown => (error as NodeJS.ErrnoException).code

const inUse = (path: string, what: string): VsockDeviceError =>
  new VsockDeviceError({ code: 'EADDRINUSE', subject: `listen ${path}`, what, next: 'stop its owner, or choose another path' })
