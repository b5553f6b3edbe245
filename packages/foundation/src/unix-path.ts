import { createHash, randomBytes } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { chmod, link, lstat, stat, unlink } from 'node:fs/promises'
import { createServer, Socket } from 'node:net'
import { basename, dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { errnoOf } from './error.js'
import { shortNameIn, withShortPath } from './long-path.js'

/*
 * How the path of a Unix socket is taken, so that of several servers that start at once exactly one gets it, and a live one never
 * loses it:
 *
 *   1. Listen on another name in the same directory, and set its mode there: no client can connect too early.
 *   2. link(2) that name to the path. This is atomic and fails if the path exists; a file at the path always has a listener.
 *   3. If the path exists, one starter at a time (see `exclusively`) looks at it. It is not a socket, or a server answers: refused.
 *      ECONNREFUSED: its owner is dead, so the starter removes it and tries step 2 again.
 *
 * While the server listens, no other server takes the path from it. So at the end the path is removed before the listener is closed,
 * and only if the inode there is still the server's own.
 */

const LOCK_WAIT_MS = 2_000

export interface TakePathOptions {
  /** Binds a listening socket to this name, with the backlog that the caller wants. */
  readonly listen: (name: string) => void | Promise<void>
  /** Permissions of the socket file, e.g. 0o660. Default: what the umask leaves. */
  readonly mode?: number | undefined
  /** The error for a path that is in use, or that holds something else. */
  readonly taken: (what: string, next: string) => Error
}

/**
 * Takes `path`, of any length on Linux, for a server that listens. Throws what `listen` throws, the error of `taken`, the errno of the
 * file system, or a `LongPathError`; nothing is left of the path then, but the caller still has to close what it listens with.
 *
 * @returns How to remove the path again, if it is still this server's. To be called before the server stops listening. Rejects if the file
 * system refuses.
 */
export async function takePath(path: string, { listen, mode, taken }: TakePathOptions): Promise<() => Promise<void>> {
  // First of all, because libuv reports a missing directory as EACCES.
  const key = await startingKey(path)
  let own: BigIntStats | undefined
  try {
    await withShortName(dirname(path), async (name) => {
      await listen(name)
      try {
        if (mode !== undefined) await chmod(name, mode)
        own = await lstat(name, { bigint: true })
        await placeAt(path, name, key, taken)
      } finally {
        await unlink(name).catch(() => {})
      }
    })
  } catch (error) {
    if (own) await removeOwn(path, own)
    throw error
  }
  return async () => {
    if (own) await removeOwn(path, own)
  }
}

/** A random name in `directory` that a socket can be bound to, however long the name of the directory itself is. */
async function withShortName(directory: string, use: (name: string) => Promise<void>): Promise<void> {
  const name = shortNameIn(directory, `.${randomBytes(6).toString('hex')}`)
  try {
    await use(name.path)
  } finally {
    name.close()
  }
}

async function placeAt(path: string, name: string, key: string, taken: TakePathOptions['taken']): Promise<void> {
  if (await linked(name, path)) return
  await exclusively(key, taken, async () => {
    do {
      await removeStale(path, taken)
    } while (!(await linked(name, path)))
  })
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw error
  }
}

/** What tells of a server that lives. EPROTOTYPE: its socket is of another type. */
const LIVE: ReadonlySet<string> = new Set(['connected', 'EAGAIN', 'EPROTOTYPE'])

/** Frees the path if only the socket file of a dead server is there; refuses otherwise. */
async function removeStale(path: string, taken: TakePathOptions['taken']): Promise<void> {
  const found = await lstat(path).catch(ignore('ENOENT'))
  if (!found) return
  if (!found.isSocket()) throw taken(`${path} exists and is not a socket`, 'Move it away, or choose another path.')
  const answer = await probe(path)
  if (answer === 'ECONNREFUSED') return unlink(path).catch(ignore('ENOENT'))
  if (answer === 'ENOENT') return
  // Anything but a refusal leaves open whether a server lives there: EAGAIN is a full backlog, EACCES the file of another user.
  const how = LIVE.has(answer) ? 'another server listens there' : `another server may listen there (${answer})`
  throw taken(how, 'Stop that server, or choose another path.')
}

/** connect(2) of a Unix socket answers at once; a live server sees a connection that is closed again. */
function probe(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = new Socket()
    socket.once('connect', () => {
      socket.destroy()
      resolve('connected')
    })
    socket.once('error', (error) => resolve(errnoOf(error)))
    try {
      withShortPath(path, (short) => socket.connect(short))
    } catch (error) {
      resolve(errnoOf(error))
    }
  })
}

/** The same for every way to write one path. */
export async function startingKey(path: string): Promise<string> {
  const { dev, ino } = await stat(dirname(path))
  return `${dev}:${ino}:${basename(path)}`
}

/**
 * One starter at a time per path, by the name of an abstract socket: binding it is atomic, and the kernel frees it when the process dies, so
 * that no lock is left over. Where there are no abstract sockets (other systems than Linux) two servers may find the same stale file at
 * the same moment.
 */
export async function exclusively(key: string, taken: TakePathOptions['taken'], use: () => Promise<void>): Promise<void> {
  if (process.platform !== 'linux') return use()
  const name = `\0upcall-path-${createHash('sha256').update(key).digest('hex').slice(0, 32)}`
  const deadline = performance.now() + LOCK_WAIT_MS
  for (;;) {
    const lock = createServer((socket) => socket.destroy())
    try {
      await new Promise<void>((resolve, reject) => {
        lock.once('error', reject)
        // exclusive: in a worker of a cluster, too, this process listens.
        lock.listen({ path: name, backlog: 1, exclusive: true }, () => {
          lock.off('error', reject)
          resolve()
        })
      })
    } catch (error) {
      if (errnoOf(error) !== 'EADDRINUSE') throw error
      if (performance.now() > deadline)
        throw taken('another server is starting there', 'Stop that server, or choose another path.')
      await delay(5)
      continue
    }
    try {
      return await use()
    } finally {
      lock.close()
    }
  }
}

async function removeOwn(path: string, own: BigIntStats): Promise<void> {
  const found = await lstat(path, { bigint: true }).catch(() => undefined)
  if (found && found.ino === own.ino && found.dev === own.dev) await unlink(path).catch(ignore('ENOENT'))
}

function ignore(errno: string): (error: unknown) => undefined {
  return (error) => {
    if (errnoOf(error) !== errno) throw error
  }
}
