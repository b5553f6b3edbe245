import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import {
  checkObject,
  checkOptionalFunction,
  checkOptionalString,
  checkOptionalStrings,
  checkSignal,
  checkString,
  checkTimeout,
  wrongType,
} from '@upcall/foundation/check'
import { systemClock } from '@upcall/foundation/clock'
import { TextLines } from '@upcall/foundation/lines'
import { bounded } from '@upcall/foundation/wait'
import { archOf, type MachineType } from '../arch.js'
import type { Drive } from '../argv.js'
import type { BootRestart } from '../boot-error.js'
import { abortedError, QemuError } from '../errors.js'
import { type BootOptions, bootGuest, type Guest } from '../guest.js'
import { type CpioEntry, cpio } from './cpio.js'
import { makeExt4 } from './ext4.js'
import type { GuestImage } from './image.js'
import { BOOT_MODULES, PAYLOAD_DISK, READY_LINE, RESULTS_PORT, ROOT_DISK, startFiles, VSOCK_MODULES } from './init.js'
import { ResultReader } from './results.js'

export interface RunOptions extends Omit<BootOptions, 'kernel' | 'initrd' | 'ready'> {
  image: GuestImage
  /** Program and arguments; the program is looked for in the guest's PATH. */
  command: readonly string[]
  /** A folder of this machine, copied onto a disk of its own: /payload in the guest, read-only. */
  payloadDir?: string | undefined
  /** Default `/payload` with a payload, else `/`. */
  cwd?: string | undefined
  env?: Readonly<Record<string, string>> | undefined
  /** Kernel modules to load besides those for disks and ports; default: both vsock transports, loopback and virtio. */
  modules?: readonly string[] | undefined
  /** Shell lines for the initramfs, run when the modules are loaded and before the disks are looked for; `fail <why>` ends the boot. */
  early?: string | undefined
  /** Files of this machine that `early` needs: name → path. They are in /early in the initramfs. */
  earlyFiles?: Readonly<Record<string, string>> | undefined
  /** Bound on the command, from its start to its end, in milliseconds; default 120000, Infinity for no limit. The boot has its own. */
  timeoutMs?: number | undefined
  /** Called for each line that the command writes to stdout, as it comes. What it throws rejects the result, and ends the guest. */
  onLine?: ((line: string) => void) | undefined
}

export interface RunResult {
  /** As a shell tells it: 128 + n for a command that was ended by signal n. */
  exitStatus: number
  /** What the command wrote to stdout. Its stderr is on the console. */
  lines: string[]
  console: string
  /** Milliseconds from QEMU's start to the start of the command, and from there to its first line and to its end. */
  timings: { bootMs: number; firstLineMs: number | undefined; commandMs: number }
  /** Boots that were given up before. */
  restarts: readonly BootRestart[]
}

/** A guest whose command runs. */
export interface GuestRun extends AsyncDisposable {
  readonly guest: Guest
  /** Resolves when the command has ended and the guest is gone. Rejects with DEADLINE, EXITED, PANIC, CLOSED or ABORTED. */
  readonly result: Promise<RunResult>
  /** Ends the guest. Idempotent. */
  close(): Promise<void>
}

const POWER_OFF_MS = 2000
const RESULT_TAIL = 5
const TIMEOUT_MS = 120_000
/** In characters. A longer line of the command's is cut. */
const LONGEST_LINE = 64 << 20

/** Boots a guest, runs one command in it, and resolves with what it wrote and how it ended. The guest is gone by then. */
export async function runInGuest(options: RunOptions): Promise<RunResult> {
  const run = await startInGuest(options)
  try {
    return await run.result
  } finally {
    await run.close()
  }
}

/** The same, for a host that works with the guest while the command runs. Resolves when the command starts. */
export async function startInGuest(options: RunOptions): Promise<GuestRun> {
  checkRunOptions(options)
  const { image, payloadDir } = options
  const machine = machineFor(options)
  const temporary = await mkdtemp(join(tmpdir(), 'upcall-guest-'))
  try {
    const token = randomBytes(8).toString('hex')
    const initrd = join(temporary, 'initrd')
    await writeFile(initrd, await composeInitrd(options, token))
    const drives: Drive[] = [{ id: ROOT_DISK, path: image.root, readOnly: true }]
    if (payloadDir !== undefined) {
      const path = join(temporary, 'payload.ext4')
      await makeExt4(payloadDir, path, options.signal)
      drives.push({ id: PAYLOAD_DISK, path, readOnly: true })
    }
    const guest = await bootGuest({
      ...options,
      ...{ machine, kernel: image.kernel, initrd, ready: READY_LINE },
      drives: [...drives, ...(options.drives ?? [])],
      ports: [RESULTS_PORT, ...(options.ports ?? [])],
    })
    const result = follow(guest, options, token)
    result.catch(() => {})
    const close = () => guest.close()
    return { guest, result, close, [Symbol.asyncDispose]: close }
  } finally {
    // QEMU has read the one file and holds the other open.
    await rm(temporary, { recursive: true, force: true })
  }
}

/** @throws TypeError, RangeError */
function checkRunOptions(options: RunOptions): void {
  checkObject('options', options)
  const { image, command, env = {}, modules, signal, onLine, payloadDir, cwd, timeoutMs = TIMEOUT_MS } = options
  checkObject('image', image, 'what buildGuestImage() made')
  if (!Array.isArray(command) || command.length === 0 || command.some((word) => typeof word !== 'string'))
    wrongType('command', 'a program and its arguments, as an array of strings', command)
  checkObject('env', env)
  for (const [name, value] of Object.entries(env)) checkString(`env.${name}`, value)
  checkOptionalStrings('modules', modules)
  checkOptionalString('payloadDir', payloadDir)
  checkOptionalString('cwd', cwd)
  checkOptionalFunction('onLine', onLine)
  checkSignal(signal)
  checkTimeout('timeoutMs', timeoutMs)
}

/** A machine of the image's architecture. */
function machineFor({ image: { arch }, machine = arch === 'aarch64' ? 'virt' : 'q35' }: RunOptions): MachineType {
  if (archOf(machine) === arch) return machine
  throw new QemuError({
    ...{ code: 'INVALID_OPTION', op: 'boot option machine', subject: machine },
    what: `it is of ${archOf(machine)}, and the image is for ${arch}`,
  })
}

/** The image's initramfs, then this run's files: the kernel unpacks archives one after the other. */
async function composeInitrd(options: RunOptions, token: string): Promise<Buffer> {
  const { image, command, env = {}, payloadDir, ports = [], early = '', earlyFiles = {} } = options
  const badName = Object.keys(env).find((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
  if (badName !== undefined)
    throw new QemuError({
      ...{ code: 'INVALID_OPTION', op: 'run option env', subject: badName, what: 'it is not the name of a variable' },
      next: 'Use letters, digits and "_".',
    })
  const files = startFiles({
    ...{ command, env, token, early },
    modules: modulesToLoad(options),
    cwd: options.cwd ?? (payloadDir === undefined ? '/' : '/payload'),
    ports: [RESULTS_PORT, ...ports],
    payload: payloadDir !== undefined,
  })
  const entries: CpioEntry[] = Object.entries(files).map(([name, data]) => ({ path: `etc/upcall/${name}`, type: 'file', data }))
  entries.push({ path: 'early', type: 'directory' })
  for (const [name, path] of Object.entries(earlyFiles))
    entries.push({ path: `early/${name}`, type: 'file', data: await readFile(path) })
  return Buffer.concat([await readFile(image.initrd), cpio(entries)])
}

function modulesToLoad({ image, modules = VSOCK_MODULES }: RunOptions): string[] {
  const order = [...BOOT_MODULES, ...modules].flatMap((name) => {
    const needed = image.modules[name]
    if (needed) return needed
    throw new QemuError({
      ...{ code: 'INVALID_OPTION', op: 'run option modules', subject: name, what: 'the image has no such kernel module' },
      next: `It has ${Object.keys(image.modules).join(', ')}.`,
    })
  })
  return [...new Set(order)]
}

async function follow(guest: Guest, options: RunOptions, token: string): Promise<RunResult> {
  const { timeoutMs = TIMEOUT_MS, signal, onLine, clock = systemClock } = options
  const started = clock.now()
  const lines: string[] = []
  let firstLineMs: number | undefined
  const reader = new ResultReader(token, (line) => {
    firstLineMs ??= clock.now() - started
    lines.push(line)
    onLine?.(line)
  })
  const about = { op: 'run', subject: options.command.join(' ') }
  const tail = () => [...guest.console.tail(), ...lines.slice(-RESULT_TAIL).map((line) => `result: ${line}`)]
  const bounds = {
    ...{ timeoutMs, signal, clock },
    late: () =>
      new QemuError({
        ...{ ...about, code: 'DEADLINE', what: `the command has not ended within ${Math.round(timeoutMs)} ms` },
        console: tail(),
      }),
    aborted: (reason: unknown) => abortedError(about, reason, tail()),
  }
  try {
    const exitStatus = await bounded<number>(bounds, (resolve, reject) => {
      const onEnd = () => {
        void guest.exited.then(() => {
          const { code, what, next, cause } = guest.console.endReason!
          reject(new QemuError({ ...about, code, what: `${what}, before the command ended`, next, cause, console: tail() }))
        })
      }
      readLines(guest.port(RESULTS_PORT), { onLine: (line) => reader.push(line), onStatus: resolve, onError: reject, onEnd })
      return undefined
    })
    const commandMs = clock.now() - started
    await poweredOff(guest, options)
    const { ms: bootMs, restarts } = guest.boot
    return { exitStatus, lines, console: guest.console.text, timings: { bootMs, firstLineMs, commandMs }, restarts }
  } catch (error) {
    await guest.close()
    throw error
  }
}

interface LineReader {
  /** Returns the exit status with the line that tells it. */
  onLine(line: string): number | undefined
  onStatus(status: number): void
  /** Something that `onLine` threw. Nothing more is read. */
  onError(error: unknown): void
  /** All that the guest sent has been read: a status that is missing then will not come. */
  onEnd(): void
}

function readLines(port: Readable, { onLine, onStatus, onError, onEnd }: LineReader): void {
  const decoder = new StringDecoder('utf8')
  const splitter = new TextLines({ max: LONGEST_LINE, longer: 'cut' })
  const take = (lines: Iterable<string>) => {
    try {
      for (const line of lines) {
        const status = onLine(line.endsWith('\r') ? line.slice(0, -1) : line)
        if (status !== undefined) onStatus(status)
      }
    } catch (error) {
      port.off('data', onData).resume()
      onError(error)
    }
  }
  const onData = (chunk: Buffer) => take(splitter.push(decoder.write(chunk)))
  port.on('data', onData)
  // A port that breaks does not end.
  port.once('close', () => {
    if (splitter.pending > 0) take([splitter.take()])
    onEnd()
  })
}

/** The guest powers off by itself, unless a process that the command started keeps the results port open. */
async function poweredOff(guest: Guest, { clock = systemClock }: RunOptions): Promise<void> {
  const cancel = clock.setTimer(POWER_OFF_MS, () => guest.kill())
  await guest.exited
  cancel()
}
