import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { QemuError } from '../errors.js'
import { findProgram } from '../process.js'

const execute = promisify(execFile)
const SYSTEM_PATH = ['/usr/sbin', '/sbin']

/** The Debian package that brings each tool used here. */
const PACKAGES = {
  'apt-get': 'apt',
  'apt-cache': 'apt',
  busybox: 'busybox-static',
  'dpkg-deb': 'dpkg',
  gcc: 'gcc',
  ldd: 'libc-bin',
  make: 'make',
  'mkfs.ext4': 'e2fsprogs',
  xz: 'xz-utils',
  zstd: 'zstd',
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
  const path = findProgram(program, `guest images are made with Debian's tools: apt-get install ${PACKAGES[tool]}`, SYSTEM_PATH)
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
