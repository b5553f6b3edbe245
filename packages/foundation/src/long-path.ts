import { closeSync, constants, existsSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { brandOf, FieldError } from './error.js'

/*
 * The address of a Unix socket has room for 107 bytes of path. A descriptor gives any file a short path: /proc/self/fd/<n>.
 *
 * O_PATH opens what cannot be opened otherwise: a socket, and a directory that may be searched and not read. It needs search permission on
 * the directories of the path and nothing else, as connect(2) does; connect(2) still checks the write permission of the socket.
 */

/** Has this value on each architecture of Linux that Node runs on. Node does not export it. */
const O_PATH = 0o10_000_000

/** What the tests replace. */
export interface System {
  readonly platform: NodeJS.Platform
  /** Where the process finds its descriptors. */
  readonly descriptors: string
}

const thisSystem: System = { platform: process.platform, descriptors: '/proc/self/fd' }

const brand = brandOf('foundation.LongPathError')

/** A path has no short form here. */
export class LongPathError extends FieldError<'ENAMETOOLONG'> {
  override readonly name = 'LongPathError'

  constructor(subject: string, what: string, next: string) {
    super({ code: 'ENAMETOOLONG', subject, what, next })
    brand.mark(this)
  }
}

/** `instanceof` that also holds between packages. */
export function isLongPathError(value: unknown): value is LongPathError {
  return brand.has(value)
}

/** The longest path that the address of a Unix socket holds, in bytes, without its final zero. */
export function longestSocketPath(platform: NodeJS.Platform = process.platform): number {
  // The BSDs, macOS among them, have 104 bytes with the zero; Linux has 108.
  return platform === 'linux' ? 107 : 103
}

/** Whether the address of a Unix socket holds this path as it is. */
export function fitsSocket(path: string, platform?: NodeJS.Platform): boolean {
  return Buffer.byteLength(path) <= longestSocketPath(platform)
}

/**
 * Calls `use` with a path of the same socket that the address of a Unix socket holds: the path itself if it is short enough, otherwise one
 * that is valid until `use` returns. `net.connect()` needs it no longer: it calls connect(2) before it returns.
 *
 * @throws what `use` throws; for a long path also the errno of open(2), and {@link LongPathError} on other systems than Linux and without
 * /proc.
 */
export function withShortPath<T>(path: string, use: (short: string) => T, system: System = thisSystem): T {
  if (fitsSocket(path, system.platform)) return use(path)
  const opened = openShort(path, 0, system)
  try {
    return use(opened.path)
  } finally {
    opened.close()
  }
}

/** A short path, valid until `close`, which is to be called once. */
export interface ShortPath {
  readonly path: string
  close(): void
}

/** The same for a file `name` that is to be made in a directory. Throws as `withShortPath` does. */
export function shortNameIn(directory: string, name: string, system: System = thisSystem): ShortPath {
  const path = join(directory, name)
  if (fitsSocket(path, system.platform)) return { path, close: () => {} }
  const opened = openShort(directory, constants.O_DIRECTORY, system, path)
  return { ...opened, path: `${opened.path}/${name}` }
}

function openShort(path: string, flags: number, { platform, descriptors }: System, wanted = path): ShortPath {
  const length = Buffer.byteLength(wanted)
  if (platform !== 'linux')
    throw new LongPathError(
      wanted,
      `the path has ${length} bytes, and this system's sockets have paths of at most ${longestSocketPath(platform)}`,
      'Use a shorter path.',
    )
  const fd = openSync(path, O_PATH | flags)
  const short = `${descriptors}/${fd}`
  if (existsSync(short)) return { path: short, close: () => closeSync(fd) }
  closeSync(fd)
  throw new LongPathError(
    wanted,
    `the path has ${length} bytes, more than the ${longestSocketPath(platform)} of a socket's address, and ${descriptors} is missing`,
    'Mount /proc, or use a shorter path.',
  )
}
