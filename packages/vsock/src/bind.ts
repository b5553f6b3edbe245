import type { Server } from 'node:net'
import { integer, wrongValue } from '@upcall/foundation/check'
import { errnoOf } from '@upcall/foundation/error'
import { isLongPathError } from '@upcall/foundation/long-path'
import { takePath } from '@upcall/foundation/unix-path'
import type { Address } from './address.js'
import { abortedError, longPathError, VsockError } from './errors.js'
import { type Inspection, isTcpSocket, notTaken } from './inherited.js'

/** Node's own. */
export const DEFAULT_BACKLOG = 511

export interface BindOptions {
  /** Permissions of the socket file, 0 to 0o777, e.g. 0o660. Default: 0o777 without the process's umask. */
  mode?: number | undefined
  /** Connections the kernel keeps waiting for accept, 1 to 2147483647; it caps this at net.core.somaxconn. Default 511. */
  backlog?: number | undefined
  /** Gives up the binding. */
  signal?: AbortSignal | undefined
}

/** @throws {RangeError} for a mode or a backlog that cannot be: the kernel would take another in its place. */
export function checkBindOptions({ mode, backlog }: BindOptions): void {
  if (backlog !== undefined) integer('backlog', backlog, { min: 1, max: 0x7fff_ffff })
  if (mode !== undefined && !(Number.isInteger(mode) && mode >= 0 && mode <= 0o777))
    wrongValue('mode', 'an integer from 0 to 0o777', mode)
}

/**
 * Binds `server` to `path`, which it takes over from a dead server. The result removes the path again and stops listening; it does
 * not touch accepted sockets.
 */
export async function bindUnix(server: Server, local: Address, path: string, options: BindOptions): Promise<() => Promise<void>> {
  const { mode, backlog = DEFAULT_BACKLOG, signal } = options
  if (signal?.aborted) throw abortedError('listen', local, signal.reason)
  try {
    const release = await takePath(path, {
      listen: (name) => listenOn(server, { path: name, exclusive: true }, backlog),
      mode,
      taken: (what, next) => new VsockError({ code: 'EADDRINUSE', op: 'listen', local, what, next }),
    })
    const stop = async () => {
      try {
        await release()
      } finally {
        server.close()
      }
    }
    if (!signal?.aborted) return stop
    await stop()
    throw abortedError('listen', local, signal.reason)
  } catch (error) {
    server.close()
    throw listenError(local, error)
  }
}

/**
 * Makes `server` listen on a socket that another program bound, and that the server owns from here on. The result stops listening. A
 * socket file is its maker's, and stays.
 */
export async function listenOnInherited(
  server: Server,
  inherited: Inspection,
  options: BindOptions,
): Promise<() => Promise<void>> {
  const { fd, binding, why } = inherited
  binding?.closeOnExec(fd)
  try {
    await listenOn(server, { fd }, options.backlog ?? DEFAULT_BACKLOG)
  } catch (error) {
    server.close()
    throw notTaken('listen', fd, why, error)
  }
  // Of a Unix socket Node knows no address here.
  if (server.address() === null) return async () => void server.close()
  server.close()
  throw isTcpSocket('listen', fd)
}

function listenOn(server: Server, where: { path: string; exclusive: true } | { fd: number }, backlog: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // exclusive: in a worker of a cluster, too, this process listens itself.
    server.listen(where, backlog, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

const WHAT: Readonly<Record<string, string>> = {
  ENOENT: 'the directory does not exist (ENOENT)',
  ENAMETOOLONG: 'the path, or a name in it, is longer than the file system takes (ENAMETOOLONG)',
}
const NEXT: Readonly<Record<string, string>> = {
  ENOENT: 'Create it first.',
  ENAMETOOLONG: 'Use a shorter path.',
  EACCES: 'A server needs write permission on the directory.',
}

/** What binding a path failed with. */
export function listenError(local: Address, error: unknown): unknown {
  if (error instanceof VsockError) return error
  if (isLongPathError(error)) return longPathError('listen', local, error)
  const code = errnoOf(error)
  return new VsockError({
    code,
    op: 'listen',
    local,
    what: WHAT[code] ?? `binding failed (${code})`,
    next: NEXT[code] ?? 'See the cause.',
    cause: error,
  })
}
