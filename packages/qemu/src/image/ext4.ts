import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { textOf } from '@upcall/foundation/error'
import { QemuError } from '../errors.js'
import { isTooOld } from './tool-text.js'
import { runTool, ToolError } from './tools.js'

const BLOCK = 4096
const INODE = 256
const SPARE = 4 << 20

/**
 * Makes an ext4 image that holds a copy of `dir`, owned by root at the top, a little larger than its content; without a journal, as
 * it is mounted read-only. The file is sparse. Rejects with QemuError IMAGE.
 */
export async function makeExt4(dir: string, file: string, signal?: AbortSignal): Promise<void> {
  const { bytes, inodes } = await measure(dir).catch((cause) => {
    throw new QemuError({ code: 'IMAGE', op: 'read', subject: dir, what: textOf(cause), cause })
  })
  const kibibytes = Math.ceil((bytes * 1.02 + inodes * INODE + SPARE) / BLOCK) * (BLOCK / 1024)
  await rm(file, { force: true })
  const layout = [
    '-b',
    String(BLOCK),
    '-I',
    String(INODE),
    '-N',
    String(inodes),
    '-m',
    '0',
    '-O',
    '^has_journal',
    '-E',
    'root_owner=0:0',
  ]
  await runTool('mkfs.ext4', ['-q', '-F', ...layout, '-d', dir, file, `${kibibytes}k`], { signal }).catch((error) => {
    if (!(error instanceof ToolError) || !isTooOld(error.output)) throw error
    const { code, op, subject, what } = error
    const next = 'e2fsprogs 1.43 or later is needed, whose mkfs.ext4 fills the disk (-d).'
    throw new QemuError({ code, op, subject, what, next, cause: error })
  })
}

/** Every file in whole blocks, and one more each, for extents and directory entries. Links are not followed. */
async function measure(dir: string): Promise<{ bytes: number; inodes: number }> {
  // Ten reserved inodes, lost+found, and some room.
  const total = { bytes: 0, inodes: 64 }
  const visit = async (path: string): Promise<void> => {
    for (const entry of await readdir(path, { withFileTypes: true })) {
      const child = join(path, entry.name)
      total.inodes += 1
      total.bytes += (Math.ceil((await lstat(child)).size / BLOCK) + 1) * BLOCK
      if (entry.isDirectory()) await visit(child)
    }
  }
  await visit(dir)
  return total
}
