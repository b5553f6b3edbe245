import { type BigIntStats, lstatSync, statSync } from 'node:fs'

/*
 * After a plain statSync() of a socket, Node resolves symlinks wrongly in require(): its realpathSync() looks at the numbers that the last
 * stat left over, and stops at the first directory that it knows if they are those of a socket. With pnpm's folders, a module that is
 * loaded late is then not found. The big integers of these calls are kept elsewhere.
 */

/** What is at a path that may be a socket's; undefined if there is nothing. Throws other errors of the file system. */
export function statOf(path: string): BigIntStats | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })
}

/** The same, but it does not follow a symlink. */
export function lstatOf(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })
}
