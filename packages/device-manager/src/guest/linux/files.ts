import { constants, createReadStream } from 'node:fs'
import { access, open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'

/** ENOENT. No request is answered with it: each caller decides what a missing file means. */
export const NO_FILE = -2

/** What the back end sees of the guest: sysfs, procfs and the ACPI tables, by absolute path. */
export interface Files {
  /** Text without white space at its ends; undefined if it cannot be read. */
  read(path: string): Promise<string | undefined>
  bytes(path: string): Promise<Uint8Array | undefined>
  exists(path: string): Promise<boolean>
  /** The names in a directory, sorted; empty if there is no such directory. */
  list(path: string): Promise<string[]>
  /** Writes to an existing file. Resolves with 0 or the negative errno: {@link NO_FILE} if it does not exist. */
  write(path: string, text: string): Promise<number>
}

/** The files below a directory, `/` in a guest. */
export function filesBelow(root: string): Files {
  const at = (path: string) => join(root, path)
  return {
    read: (path) =>
      readFile(at(path), 'utf8').then(
        (text) => text.trim(),
        () => undefined,
      ),
    // sysfs returns one page at a time, and readFile takes such a short read for the end.
    bytes: (path) => buffer(createReadStream(at(path))).catch(() => undefined),
    exists: (path) =>
      access(at(path)).then(
        () => true,
        () => false,
      ),
    list: (path) =>
      readdir(at(path)).then(
        (names) => names.sort(),
        () => [],
      ),
    async write(path, text) {
      try {
        // Many of these files are write-only, and none may be created by mistake.
        const file = await open(at(path), constants.O_WRONLY)
        try {
          await file.write(text)
        } finally {
          await file.close()
        }
        return 0
      } catch (error) {
        const { errno } = error as NodeJS.ErrnoException
        if (errno === undefined) throw error
        return errno
      }
    },
  }
}

/** A list of CPUs as the kernel prints it, e.g. `0-3,6`; ascending. */
export function cpuList(text: string | undefined): number[] {
  const numbers: number[] = []
  for (const range of (text ?? '').split(',')) {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? []
    if (first !== undefined) for (let n = Number(first); n <= Number(last); n++) numbers.push(n)
  }
  return numbers
}
