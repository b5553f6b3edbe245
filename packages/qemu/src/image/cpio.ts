/** One file of an initramfs. Paths have no leading slash; parents come before their children. */
export type CpioEntry =
  | { path: string; type: 'directory'; mode?: number }
  | { path: string; type: 'file'; mode?: number; data: Uint8Array | string }
  | { path: string; type: 'symlink'; target: string }

const FILE_TYPE = { directory: 0o040000, file: 0o100000, symlink: 0o120000 }
const BLOCK = 512

/**
 * Writes the "newc" cpio format, the one the kernel unpacks (Linux, Documentation/driver-api/early-userspace/buffer-format): 110
 * bytes of ASCII header, the name, the data, each padded to 4. Owner root, time 0: equal input gives equal bytes. Padded to 512, so
 * that archives can follow one another. Of two files with one path the later file counts.
 */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const records = entries.flatMap((entry, i) => record(i + 1, entry.path, mode(entry), content(entry)))
  const archive = Buffer.concat([...records, ...record(0, 'TRAILER!!!', 0, Buffer.alloc(0))])
  return Buffer.concat([archive, padding(archive.length, BLOCK)])
}

function record(inode: number, path: string, mode: number, data: Buffer): Buffer[] {
  const name = Buffer.from(`${path}\0`)
  const links = (mode & 0o170000) === FILE_TYPE.directory ? 2 : 1
  // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
  const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0]
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`)
  return [header, name, padding(header.length + name.length, 4), data, padding(data.length, 4)]
}

function mode(entry: CpioEntry): number {
  const permissions = entry.type === 'symlink' ? 0o777 : (entry.mode ?? (entry.type === 'directory' ? 0o755 : 0o644))
  return FILE_TYPE[entry.type] | permissions
}

function content(entry: CpioEntry): Buffer {
  if (entry.type === 'directory') return Buffer.alloc(0)
  return Buffer.from(entry.type === 'symlink' ? entry.target : entry.data)
}

function padding(length: number, to: number): Buffer {
  return Buffer.alloc((to - (length % to)) % to)
}
