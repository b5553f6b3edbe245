import { createHash, randomBytes } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { chmod, link, lstat, open, stat, unlink } from 'node:fs/promises'
import { createServer, connect as netConnect, type Server } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Address, UNIX_PATH_MAX } from './address.js'
import { abortedError, errnoOf, VsockError } from './errors.js'

/*
 * How a path is bound, so that of several servers starting at once exactly one gets it, and no live one ever loses it:
 *
 *   1. Listen on a name of our own in the same directory, and set its mode there: nobody can connect too early.
 *   2. link(2) it to the path. That is atomic and fails if the path exists; a file at the path always has a listener behind it.
 *   3. If the path exists: one starter at a time (see `exclusively`) looks at it. Not a socket, or somebody answers: refused.
 *      ECONNREFUSED: its owner is dead, so it is removed and 2. tried again.
 *
 * While we listen nobody takes the path from us, so at the end it is removed before the listener is closed, and only if the inode
 * there is still ours. libuv itself unlinks the name that was bound, the one of 1., which is long gone.
 */

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
export function checkBindOptions({ mode = 0, backlog = DEFAULT_BACKLOG }: BindOptions): void {
  if (!Number.isInteger(backlog) || backlog < 1 || backlog > 0x7fff_ffff)
    throw new RangeError(`backlog is ${backlog}; an integer from 1 to 2147483647`)
  if (typeof mode === 'number' && !(Number.isInteger(mode) && mode >= 0 && mode <= 0o777))
    throw new RangeError(`mode is ${mode}; an integer from 0 to 0o777`)
}

/** Binds `server` to `path`. The result removes the path again and stops listening; accepted sockets are not its business. */
export async function bindUnix(server: Server, local: Address, path: string, options: BindOptions): Promise<() => Promise<void>> {
  const { mode, backlog = DEFAULT_BACKLOG, signal } = options
  checkBindOptions(options)
  if (signal?.aborted) throw abortedError('listen', local, signal.reason)
  const directory = dirname(path)
  let own: BigIntStats | undefined
  try {
    // First of all, because libuv reports a missing directory as EACCES.
    const lockKey = await startingKey(path)
    await withShortName(directory, async (name) => {
      await listenOn(server, name, backlog)
      try {
        if (mode !== undefined) await chmod(name, mode)
        own = await lstat(name, { bigint: true })
        await placeAt(path, name, local, lockKey)
      } finally {
        await unlink(name)
      }
    })
    if (signal?.aborted) throw abortedError('listen', local, signal.reason)
  } catch (error) {
    if (own) await removeOwn(path, own)
    server.close()
    throw listenError(local, error)
  }
  const bound = own
  return async () => {
    if (bound) await removeOwn(path, bound)
    server.close()
  }
}

/** A random name in `directory` that a socket can be bound to, however long the directory's own name is. */
async function withShortName(directory: string, use: (name: string) => Promise<void>): Promise<void> {
  const random = `.${randomBytes(6).toString('hex')}`
  const name = join(directory, random)
  if (Buffer.byteLength(name) <= UNIX_PATH_MAX || process.platform !== 'linux') return use(name)
  const handle = await open(directory, 'r')
  try {
    await use(`/proc/self/fd/${handle.fd}/${random}`)
  } finally {
    await handle.close()
  }
}

function listenOn(server: Server, path: string, backlog: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // exclusive: in a cluster's worker, too, this process is the one that listens.
    server.listen({ path, backlog, exclusive: true }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

async function placeAt(path: string, name: string, local: Address, lockKey: string): Promise<void> {
  if (await linked(name, path)) return
  await exclusively(lockKey, local, async () => {
    do {
      await removeStale(path, local)
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

/** Frees the path if only a dead server's socket file is there; refuses otherwise. */
async function removeStale(path: string, local: Address): Promise<void> {
  const found = await lstat(path).catch(ignore('ENOENT'))
  if (!found) return
  if (!found.isSocket()) throw taken(local, `${path} exists and is not a socket`, 'move it away, or choose another path')
  const answer = await probe(path)
  if (answer === 'ECONNREFUSED') return unlink(path).catch(ignore('ENOENT'))
  if (answer === 'ENOENT') return
  // Anything but a refusal leaves open whether somebody lives there: EAGAIN is a full backlog, EACCES not our file.
  const how = answer === 'connected' ? 'another server listens there' : `another server may listen there (${answer})`
  throw taken(local, how, 'stop it, or choose another path')
}

/** A Unix socket's connect(2) answers at once; a live server sees a connection that is closed again. */
function probe(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = netConnect({ path })
    socket.once('connect', () => {
      socket.destroy()
      resolve('connected')
    })
    socket.once('error', (error) => resolve(errnoOf(error)))
  })
}

/** The same for every way to write one path. */
export async function startingKey(path: string): Promise<string> {
  const { dev, ino } = await stat(dirname(path))
  return `${dev}:${ino}:${basename(path)}`
}

const LOCK_WAIT_MS = 2_000

/**
 * One starter at a time per path, by holding an abstract socket's name: binding it is atomic, and the kernel lets go of it when
 * the process dies, so no lock can be left behind. Where there are no abstract sockets (not Linux) the risk is two servers finding
 * the same stale file within the same moment.
 */
export async function exclusively(key: string, local: Address, use: () => Promise<void>): Promise<void> {
  if (process.platform !== 'linux') return use()
  const name = `\0upcall-vsock-${createHash('sha256').update(key).digest('hex').slice(0, 32)}`
  const deadline = performance.now() + LOCK_WAIT_MS
  for (;;) {
    const lock = createServer((socket) => socket.destroy())
    try {
      await listenOn(lock, name, 1)
    } catch (error) {
      if (errnoOf(error) !== 'EADDRINUSE') throw error
      if (performance.now() > deadline) throw taken(local, 'another server is starting there', 'stop it, or choose another path')
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

function taken(local: Address, what: string, next: string): VsockError {
  return new VsockError({ code: 'EADDRINUSE', op: 'listen', local, what, next })
}

function listenError(local: Address, error: unknown): unknown {
  if (error instanceof VsockError) return error
  const code = errnoOf(error)
  const next = { ENOENT: 'create the directory first', EACCES: 'a server needs write permission on the directory' }[code]
  return new VsockError({ code, op: 'listen', local, what: `failed with ${code}`, next: next ?? 'see the cause', cause: error })
}
