import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { Duplex, Readable } from 'node:stream'
import { checkString, wrongValue } from '@upcall/foundation/check'
import { textOf } from '@upcall/foundation/error'
import { traceOf } from '@upcall/foundation/trace'
import { ARCHES } from './arch.js'
import type { ArgvDescriptors } from './argv.js'
import { QemuError } from './errors.js'

const trace = traceOf('qemu')

/** How a QEMU process ended. `output` is the end of what it said on its own stdout and stderr: complaints, not the guest's console. */
export interface QemuExit {
  code: number | null
  signal: NodeJS.Signals | null
  output: string
}

/** One QEMU process and the streams it inherited. */
export interface QemuProcess {
  /** Undefined if it could not be started, which `exited` tells. */
  readonly pid: number | undefined
  readonly console: Duplex
  readonly qmp: Duplex
  readonly ports: readonly Duplex[]
  /** Resolves when the process is gone and its console is read to the end; never rejects. */
  readonly exited: Promise<QemuExit>
  kill(signal: 'SIGTERM' | 'SIGKILL'): void
}

const OUTPUT_KEPT = 8192
const FIRST_DESCRIPTOR = 3

/** The path of an executable: as given when it has a slash, else from PATH. @throws QemuError TOOL_MISSING, with `next` */
export function findProgram(name: string, next: string, extraPath: readonly string[] = []): string {
  const found = searchProgram(name, extraPath)
  if (found !== undefined) return found
  throw new QemuError({ code: 'TOOL_MISSING', subject: name, what: 'it is not installed or not executable', next })
}

export function hasProgram(name: string, extraPath: readonly string[]): boolean {
  return searchProgram(name, extraPath) !== undefined
}

function searchProgram(name: string, extraPath: readonly string[]): string | undefined {
  const path = [...(process.env.PATH ?? '').split(delimiter), ...extraPath]
  const candidates = name.includes('/') ? [name] : path.map((dir) => join(dir, name))
  return candidates.find(isExecutable)
}

/** The path of QEMU. @throws QemuError TOOL_MISSING, which says what to install; TypeError or RangeError for a wrong name */
export function findQemu(name: string = ARCHES.x86_64.qemu): string {
  checkString('qemu', name, 'a name or a path')
  if (name === '') wrongValue('qemu', 'a name or a path', name)
  const { qemuPackage } = Object.values(ARCHES).find(({ qemu }) => qemu === name) ?? ARCHES.x86_64
  return findProgram(name, `Install it with: apt-get install ${qemuPackage}`)
}

/**
 * Starts QEMU with console, QMP and ports as inherited socket pairs: no Unix path to collide, to guess or to clean up. The
 * process dies with this one: killed at exit, and by the kernel (setpriv --pdeathsig) should this one be killed.
 */
export function startQemu(
  program: string,
  argv: (fds: ArgvDescriptors) => string[],
  portCount: number,
  setprivPath: readonly string[] = SETPRIV_PATH,
): QemuProcess {
  const ports = Array.from({ length: portCount }, (_, i) => FIRST_DESCRIPTOR + 2 + i)
  const args = argv({ console: FIRST_DESCRIPTOR, qmp: FIRST_DESCRIPTOR + 1, ports })
  const [command, prefix] = ownedBy(program, setprivPath)
  const child = spawnWith(2 + portCount, command, [...prefix, ...args])
  trace({ type: 'qemu.started', pid: child.pid, program, args }, 'QEMU %d: %s %s', child.pid, program, args.join(' '))
  killAtExit(child)
  const streams = child.stdio.slice(FIRST_DESCRIPTOR) as Duplex[]
  // A QEMU that dies resets these; that it died is told by `exited`.
  for (const stream of streams) stream.on('error', () => {})
  const [console, qmp, ...portStreams] = streams as [Duplex, Duplex, ...Duplex[]]
  const exited = watch(child, console)
  void exited.then((exit) => trace({ type: 'qemu.exited', pid: child.pid, ...exit }, 'QEMU %d exited: %j', child.pid, exit))
  return { pid: child.pid, console, qmp, ports: portStreams, exited, kill: (signal) => void child.kill(signal) }
}

/** @throws QemuError EXITED if there is not even a process to wait for. */
function spawnWith(pipes: number, command: string, args: readonly string[]): ChildProcess {
  const failed = (why: string, cause?: unknown) =>
    new QemuError({ code: 'EXITED', op: 'boot', subject: '', what: `QEMU did not start: ${why}`, cause })
  let child: ChildProcess
  try {
    child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe', ...Array<'pipe'>(pipes).fill('pipe')] })
  } catch (cause) {
    // E2BIG, say, for a kernel command line of more than 128 KiB.
    throw failed(textOf(cause), cause)
  }
  // Without descriptors for them, there are no streams either.
  if ((child.stdio as unknown) !== undefined) return child
  child.on('error', () => {})
  throw failed('no file descriptors are left')
}

function watch(child: ChildProcess, console: Readable): Promise<QemuExit> {
  let output = ''
  const collect = (text: string) => {
    output = (output + text).slice(-OUTPUT_KEPT)
  }
  const read = [...[child.stdout!, child.stderr!].map((stream) => stream.setEncoding('utf8').on('data', collect)), console]
  const closed = read.map((stream) => new Promise<void>((resolve) => stream.once('end', resolve).once('close', resolve)))
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: null, signal: null, output: textOf(error) }))
    child.once('exit', (code, signal) => {
      void Promise.all(closed).then(() => resolve({ code, signal, output: output.trim() }))
    })
  })
}

/** Where util-linux is. The first setpriv on PATH may be another's. */
const SETPRIV_PATH = ['/usr/bin', '/bin']
/** How long a setpriv may take to say what it can, in milliseconds. */
const PROBE_MS = 5000
/** By path: undefined for a setpriv that can tell the kernel to kill a process when its parent dies, else what it said. */
const probed = new Map<string, string | undefined>()
let warned = false

/** The program, run by a setpriv that tells the kernel to kill the process when its parent dies, and then becomes it. */
function ownedBy(program: string, path: readonly string[]): [string, string[]] {
  const candidates = path.map((folder) => join(folder, 'setpriv')).filter(isExecutable)
  for (const setpriv of candidates) {
    if (!probed.has(setpriv)) probed.set(setpriv, probe(setpriv))
    if (probed.get(setpriv) === undefined) return [setpriv, ['--pdeathsig', 'KILL', '--', program]]
  }
  if (!warned) {
    warned = true
    const said = candidates.map((setpriv) => `; ${setpriv}: ${probed.get(setpriv)}`).join('')
    process.emitWarning(
      `there is no setpriv with --pdeathsig (util-linux 2.33 or later)${said}. ` +
        'QEMU goes on if this process is killed by SIGKILL. Install util-linux.',
    )
  }
  return [program, []]
}

/** Whether it does what it is used for: busybox has a program of that name, too. Returns what is wrong with it. */
function probe(setpriv: string): string | undefined {
  const { status, error, stderr } = spawnSync(setpriv, ['--pdeathsig', 'KILL', '--', setpriv, '--version'], {
    encoding: 'utf8',
    timeout: PROBE_MS,
  })
  if (status === 0) return undefined
  return (error === undefined ? stderr.trim().split('\n')[0] : textOf(error)) || `ended with status ${status}`
}

const running = new Set<ChildProcess>()

function killAtExit(child: ChildProcess): void {
  if (running.size === 0) process.on('exit', killRunning)
  running.add(child)
  const forget = () => {
    running.delete(child)
    if (running.size === 0) process.off('exit', killRunning)
  }
  child.once('exit', forget).once('error', forget)
}

function killRunning(): void {
  for (const child of running) child.kill('SIGKILL')
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    // Every folder that may be entered is executable.
    return statSync(path).isFile()
  } catch {
    return false
  }
}
