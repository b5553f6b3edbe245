import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { archOf, type MachineType } from '../arch.js'
import type { Drive } from '../argv.js'
import { bounded, checkDeadline, systemClock } from '../bounded.js'
import { checkFunction, checkOptions, checkSignal, checkText, checkTexts, refused } from '../check.js'
import { QemuError } from '../errors.js'
import { type BootOptions, type BootRestart, bootGuest, type Guest } from '../guest.js'
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
  /** For the command, from its start to its end; default 120000, infinity for none. The boot has a deadline of its own. */
  deadlineMs?: number | undefined
  /** Called for each line the command writes to stdout, as it comes. */
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
  /** Settles when the command is through, the guest being gone then. Rejects with DEADLINE, EXITED, PANIC, CLOSED or ABORTED. */
  readonly result: Promise<RunResult>
  /** Ends the guest. Twice is once. */
  close(): Promise<void>
}

const POWER_OFF_MS = 2000
const RESULT_TAIL = 5

/** Boots a guest, runs one command in it, and resolves with what it wrote and how it ended. The guest is gone by then. */
export async function runInGuest(options: RunOptions): Promise<RunResult> {
  const run = await startInGuest(options)
  try {
    return await run.result
  } finally {
    await run.close()
  }
}

/** The same, for a host that has business with the guest while the command runs. Resolves when the command starts. */
export async function startInGuest(options: RunOptions): Promise<GuestRun> {
  checkRunOptions(options)
  const { image, payloadDir } = options
  const machine = machineFor(options)
  checkDeadline('command', options.deadlineMs ?? 0)
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

/** @throws QemuError */
function checkRunOptions(options: RunOptions): void {
  checkOptions('guest', options)
  const { image, command, env = {}, modules, signal, onLine, payloadDir, cwd } = options
  if (typeof image !== 'object' || image === null) throw refused('image', image, 'what buildGuestImage() made')
  if (!Array.isArray(command) || command.length === 0 || command.some((word) => typeof word !== 'string'))
    throw refused('command', command, 'a program and its arguments, as an array of texts')
  checkOptions('env', env)
  for (const [name, value] of Object.entries(env)) if (typeof value !== 'string') throw refused(`env.${name}`, value, 'a text')
  checkTexts('modules', modules)
  checkText('payloadDir', payloadDir)
  checkText('cwd', cwd)
  checkFunction('onLine', onLine)
  checkSignal('guest', signal)
}

/** A machine of the image's architecture. */
function machineFor({ image: { arch }, machine = arch === 'aarch64' ? 'virt' : 'q35' }: RunOptions): MachineType {
  if (archOf(machine) === arch) return machine
  throw new QemuError('INVALID_OPTION', `boot option machine is "${machine}", of ${archOf(machine)}; the image is for ${arch}`)
}

/** The image's initramfs with this run's files behind it: the kernel unpacks archives one after the other. */
async function composeInitrd(options: RunOptions, token: string): Promise<Buffer> {
  const { image, command, env = {}, payloadDir, ports = [], early = '', earlyFiles = {} } = options
  const badName = Object.keys(env).find((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
  if (badName !== undefined)
    throw new QemuError('INVALID_OPTION', `env has the name ${JSON.stringify(badName)}; allowed: letters, digits, "_"`)
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
    throw new QemuError(
      'INVALID_OPTION',
      `the image holds no kernel module ${name}; it has ${Object.keys(image.modules).join(', ')}`,
    )
  })
  return [...new Set(order)]
}

async function follow(guest: Guest, options: RunOptions, token: string): Promise<RunResult> {
  const { deadlineMs = 120_000, signal, onLine, clock = systemClock } = options
  const started = clock.now()
  const lines: string[] = []
  let firstLineMs: number | undefined
  const reader = new ResultReader(token, (line) => {
    firstLineMs ??= clock.now() - started
    lines.push(line)
    onLine?.(line)
  })
  const what = `guest: ${options.command.join(' ')}`
  const tail = () => [...guest.console.tail(), ...lines.slice(-RESULT_TAIL).map((line) => `result: ${line}`)]
  try {
    const exitStatus = await bounded<number>({ deadlineMs, signal, clock, what, tail }, (resolve, reject) => {
      const input = createInterface({ input: guest.port(RESULTS_PORT), crlfDelay: Number.POSITIVE_INFINITY })
      // A port that breaks does not end by itself.
      input.on('error', () => input.close())
      input.on('line', (line) => {
        const status = reader.push(line)
        if (status !== undefined) resolve(status)
      })
      // All that the guest sent has been read when the port ends: what is missing then will not come.
      input.once('close', async () => {
        await guest.exited
        const { code, summary, cause } = guest.console.endReason!
        reject(new QemuError(code, `${what}: ${summary}, before it told an exit status`, { cause, console: tail() }))
      })
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

/** It powers off by itself, unless something the command left behind keeps the results port open. */
async function poweredOff(guest: Guest, { clock = systemClock }: RunOptions): Promise<void> {
  const cancel = clock.setTimer(POWER_OFF_MS, () => guest.kill())
  await guest.exited
  cancel()
}
