import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { checkOneOf } from '@upcall/foundation/check'
import { textOf } from '@upcall/foundation/error'
import { abortedError, QemuError } from '../errors.js'
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

/** What the host needs to make and boot a guest image; what it needs besides for a kernel module, and for an aarch64 guest. */
const NEEDED = {
  image: ['qemu-system-x86_64', 'apt-get', 'apt-cache', 'dpkg-deb', 'ldd', 'mkfs.ext4', 'xz'],
  module: ['gcc', 'make', 'libelf.so.1'],
  aarch64: ['qemu-system-aarch64'],
  // For the caller's own programs in such a guest.
  'aarch64-gcc': ['aarch64-linux-gnu-gcc'],
} as const

const LIBRARY_PATH = ['/usr/lib/x86_64-linux-gnu', '/lib/x86_64-linux-gnu', '/usr/lib64', '/lib64', '/usr/lib', '/usr/local/lib']

type Purpose = keyof typeof NEEDED

/** What is missing and how to get it, in one or two sentences; undefined if nothing is. @throws RangeError for an unknown purpose */
export function missingTools(...purposes: readonly Purpose[]): string | undefined {
  const missing = missingFor(purposes)
  return missing === undefined ? undefined : `${missing.what}. ${missing.next}`
}

/** @throws QemuError TOOL_MISSING, which says what is missing and how to get it; RangeError for an unknown purpose */
export function requireTools(...purposes: readonly Purpose[]): void {
  const missing = missingFor(purposes)
  if (missing !== undefined) throw new QemuError({ code: 'TOOL_MISSING', subject: '', ...missing })
}

function missingFor(purposes: readonly Purpose[]): { what: string; next: string } | undefined {
  const isThere = (name: string) =>
    name.includes('.so.') ? LIBRARY_PATH.some((folder) => existsSync(join(folder, name))) : hasProgram(name, SYSTEM_PATH)
  for (const purpose of purposes) checkOneOf('purpose', purpose, Object.keys(NEEDED))
  const missing = purposes.flatMap((purpose) => NEEDED[purpose]).filter((name) => !isThere(name))
  if (missing.length === 0) return undefined
  const what = `${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} not installed`
  if (missing.some(isDebians)) return { what, next: NO_DEBIAN }
  const packages = [...new Set(missing.map((name) => PACKAGES[name]))]
  return { what, next: `On Debian: apt-get install ${packages.join(' ')}` }
}

const NO_DEBIAN =
  "Guest images are made on Debian, or a system like it (x64), from Debian's packages. Your own kernel and root disk can be booted anywhere."

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

/** A tool of the system failed. */
export class ToolError extends QemuError {
  /** What it said on stderr. */
  readonly output: string

  constructor(op: string, subject: string, how: string, output: string, cause: unknown) {
    super({ code: 'IMAGE', op, subject, what: output === '' ? how : `${how}: ${output}`, cause })
    this.output = output
  }
}

/** How many of a tool's arguments its errors show. */
const SHOWN_ARGUMENTS = 4

/** Runs one tool to its end and resolves with its stdout. Rejects with QemuError TOOL_MISSING or ABORTED, or with ToolError. */
export async function runTool(tool: keyof typeof PACKAGES, args: readonly string[], options: ToolOptions = {}): Promise<Buffer> {
  const { cwd, signal, program = tool, timeoutMs = 120_000 } = options
  const next = isDebians(tool) ? NO_DEBIAN : `Guest images are made with Debian's tools: apt-get install ${PACKAGES[tool]}`
  const path = findProgram(program, next, SYSTEM_PATH)
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
    const subject = args.slice(0, SHOWN_ARGUMENTS).join(' ')
    if (signal?.aborted) throw abortedError({ op: tool, subject }, signal.reason)
    const { stderr, killed, code } = cause as { stderr?: Buffer | string; killed?: boolean; code?: number | string }
    const how = killed ? `it does not end within ${timeoutMs} ms` : `it failed (${code ?? textOf(cause)})`
    throw new ToolError(tool, subject, how, stderr === undefined ? '' : stderr.toString().trim(), cause)
  }
}
