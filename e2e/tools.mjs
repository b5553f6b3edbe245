import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Programs the end-to-end tests run on the host, and the Debian package each comes from. */
const TOOLS = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'apt-get': 'apt',
  'apt-cache': 'apt',
  'dpkg-deb': 'dpkg',
  'mkfs.ext4': 'e2fsprogs',
  gcc: 'gcc',
  ldd: 'libc-bin',
  make: 'make',
  xz: 'xz-utils',
}

const FOLDERS = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']

/** What is not there and how to get it, in one sentence; undefined if nothing is missing. */
export function missingTools() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return `guests are booted on Linux x64 with Debian's tools, not on ${process.platform} ${process.arch}`
  }
  const missing = Object.keys(TOOLS).filter((tool) => !FOLDERS.some((folder) => isExecutable(join(folder, tool))))
  if (missing.length === 0) return undefined
  const packages = [...new Set(missing.map((tool) => TOOLS[tool]))]
  return `${missing.join(', ')} not found; on Debian: apt-get install ${packages.join(' ')}`
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
