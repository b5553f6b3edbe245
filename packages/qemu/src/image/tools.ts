import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { refused } from '../check.js'
import { QemuError } from '../errors.js'
import { findProgram, hasProgram } from '../process.js'

const execute = promisify(execFile)
const SYSTEM_PATH = ['/usr/sbin', '/sbin']

/** The Debian package that brings each tool used here. */
const PACKAGES = {
  'apt-get': 'apt',
  'apt-cache': 'apt',
  // Debian's compiler only recommends the headers that it needs.
  'aarch64-linux-gnu-gcc': 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross',
  busybox: 'busybox-static',
  'dpkg-deb': 'dpkg',
  gcc: 'gcc',
  ldd: 'libc-bin',
  // Of objtool, which comes with the kernel's headers.
  'libelf.so.1': 'libelf1',
  make: 'make',
  'mkfs.ext4': 'e2fsprogs',
  'qemu-system-aarch64': 'qemu-system-arm',
  'qemu-system-x86_64': 'qemu-system-x86',
  xz: 'xz-utils',
  zstd: 'zstd',
}

/** What making and booting a guest image needs of the host; what building a kernel module, and what an aarch64 guest needs besides. */
const NEEDED = {
  image: ['qemu-system-x86_64', 'apt-get', 'apt-cache', 'dpkg-deb', 'ldd', 'mkfs.ext4', 'xz'],
  module: ['gcc', 'make', 'libelf.so.1'],
  aarch64: ['qemu-system-aarch64'],
  // Programs of one's own for it.
  'aarch64-gcc': ['aarch64-linux-gnu-gcc'],
} as const

const LIBRARY_PATH = ['/usr/lib/x86_64-linux-gnu', '/lib/x86_64-linux-gnu', '/usr/lib64', '/lib64', '/usr/lib', '/usr/local/lib']

/** What is missing of it all and how to get it, in one sentence; undefined if nothing is. Throws QemuError for a purpose that there is not. */
export function missingTools(...purposes: readonly (keyof typeof NEEDED)[]): string | undefined {
  const isThere = (name: string) =>
    name.includes('.so.') ? LIBRARY_PATH.some((folder) => existsSync(join(folder, name))) : hasProgram(name, SYSTEM_PATH)
  for (const purpose of purposes)
    if (!Object.hasOwn(NEEDED, purpose)) throw refused('purpose', purpose, Object.keys(NEEDED).join(', '))
  const missing = purposes.flatMap((purpose) => NEEDED[purpose]).filter((name) => !isThere(name))
  if (missing.length === 0) return undefined
  const notFound = `${missing.join(', ')} not found`
  if (missing.some(isDebians)) return `${notFound}; ${NO_DEBIAN}`
  const packages = [...new Set(missing.map((name) => PACKAGES[name]))]
  return `${notFound}; on Debian: apt-get install ${packages.join(' ')}`
}

const NO_DEBIAN =
  'guest images are made on Debian, or a system like it (x64), out of its packages; an own kernel and root disk can be booted anywhere'

/** What every Debian has, and what cannot be installed elsewhere. */
function isDebians(tool: keyof typeof PACKAGES): boolean {
  return PACKAGES[tool] === 'apt' || PACKAGES[tool] === 'dpkg'
}

export interface ToolOptions {
  cwd?: string | undefined
  /** The file to run, where the tool is not one of the system's. */
  program?: string | undefined
  signal?: AbortSignal | undefined
  /** Default two minutes. */
  timeoutMs?: number | undefined
}

/** Runs one tool to its end and resolves with its stdout. Rejects with QemuError TOOL_MISSING, or IMAGE and what it said on stderr. */
export async function runTool(tool: keyof typeof PACKAGES, args: readonly string[], options: ToolOptions = {}): Promise<Buffer> {
  const { cwd, signal, program = tool, timeoutMs = 120_000 } = options
  const hint = isDebians(tool) ? NO_DEBIAN : `guest images are made with Debian's tools: apt-get install ${PACKAGES[tool]}`
  const path = findProgram(program, hint, SYSTEM_PATH)
  try {
    const env = { ...process.env, LC_ALL: 'C' }
    const { stdout } = await execute(path, args, {
      cwd,
      signal,
      env,
      timeout: timeoutMs,
      encoding: 'buffer',
      maxBuffer: 256 << 20,
    })
    return stdout
  } catch (cause) {
    if (signal?.aborted) throw new QemuError('ABORTED', `${tool}: aborted`, { cause: signal.reason })
    const { stderr = '', killed, code } = cause as { stderr?: Buffer | string; killed?: boolean; code?: number | string }
    const how = killed ? `no end after ${timeoutMs} ms` : `failed (${code})`
    throw new QemuError('IMAGE', `${tool} ${args.slice(0, 4).join(' ')}: ${how}: ${stderr.toString().trim()}`, { cause })
  }
}
