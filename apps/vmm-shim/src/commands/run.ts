import { accessSync, constants } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { KernelVersion } from '@upcall/device-manager/guest'
import { errnoOf, messageFor } from '@upcall/foundation/error'
import { statOf } from '@upcall/foundation/stat'
import { exposeMetrics, isMetricsError, type MetricsServer } from '@upcall/metrics/prometheus'
import { type Accelerator, type ConsoleLog, openLogFile } from '@upcall/qemu'
import { MEMORY_BLOCK, type ShimMachine } from '@upcall/vmm/qemu'
import { formatAddress, type HybridProfile, UNIX_PATH_MAX } from '@upcall/vsock'
import { type Arch, UPCALL_PORT } from '@upcall/wire'
import { type SimulatedShimOptions, startShim } from '../guest/shim.js'
import { type LOG_LEVELS, type Log, stderrLog } from '../log.js'
import { PageServer } from '../page/server.js'
import { hostText, type PageAddress } from '../page/where.js'
import { startQemuShim } from '../qemu/shim.js'
import type { ShimWatcher } from '../watcher.js'
import { type Capture, captureTo } from './capture.js'
import { nextSignal } from './signals.js'
import { UsageError } from './usage-error.js'

export interface RunFlags {
  uds: string
  vsockProfile?: HybridProfile
  api?: string
  metrics?: string
  ui?: PageAddress
  pcap?: string
  arch?: Arch
  cpus: number
  maxCpus: number
  memory: number
  logLevel: (typeof LOG_LEVELS)[number]
  // Of a simulated guest.
  kernelGeneration: KernelVersion
  bootMs: number
  hardware?: SimulatedShimOptions['hardware']
  // Of a guest under QEMU.
  qemu?: true
  machine: ShimMachine
  accel: Accelerator
  kernel?: string
  initrd?: string
  image?: string
  append?: string
  maxMemory?: number
  cid: number
  monitor?: string
  console?: string
  cacheDir?: string
  profile?: 'dragonball'
}

/** Serves until a signal comes, and ends everything it started. */
export async function run(flags: RunFlags, given: (flag: keyof RunFlags) => boolean): Promise<void> {
  checkFlags(flags, given)
  if (flags.profile) flags.machine = 'microvm'
  // Debian's kernel learns of further CPUs by ACPI only, of which a microvm has none here.
  else if (flags.qemu && flags.machine === 'microvm' && !given('maxCpus')) flags.maxCpus = 1
  if (flags.profile && !given('maxCpus')) flags.maxCpus = flags.cpus
  if (flags.profile && !given('cpus')) flags.cpus = flags.maxCpus
  const { logLevel, cpus, maxCpus } = flags
  if (cpus > maxCpus)
    throw new UsageError(`--cpus ${cpus}: is more than --max-cpus, which is ${maxCpus}. Lower the one or raise the other.`)
  checkPaths(flags)
  using stop = nextSignal()
  const log = stderrLog(logLevel)
  // Before anything that is to be counted.
  await using metrics = flags.metrics === undefined ? undefined : await metricsAt(flags.metrics)
  if (metrics) process.stdout.write(`metrics ${metrics.url}\n`)
  // It shows how the guest boots, too.
  await using page = flags.ui === undefined ? undefined : await pageAt(flags.ui, flags, log)
  if (page) process.stdout.write(`page    ${page.url}\n`)
  await using capture = flags.pcap === undefined ? undefined : await captureTo(flags.pcap, flags.qemu === true, log)
  if (flags.qemu) await runQemu(flags, log, stop.signalled, page)
  else await runSimulated(flags, log, stop.signalled, page, capture)
}

async function pageAt(at: PageAddress, flags: RunFlags, log: Log): Promise<PageServer> {
  const { uds: path, qemu, memory: boot, machine, maxMemory = 4 * boot, arch = hostArch() } = flags
  const grows = qemu && machine !== 'microvm'
  try {
    return await PageServer.open({
      at,
      log,
      about: {
        guest: qemu ? 'qemu' : 'simulated',
        arch: qemu ? 'x86_64' : arch,
        address: formatAddress({ transport: 'hvsock', path, port: UPCALL_PORT }),
        memory: { boot, max: grows ? maxMemory : boot, block: MEMORY_BLOCK },
      },
    })
  } catch (error) {
    const what = {
      EADDRINUSE: 'the port is in use',
      EACCES: 'the port may not be used by this user',
      EADDRNOTAVAIL: 'this machine does not have the address',
    }[errnoOf(error)]
    if (what === undefined) throw error
    throw new UsageError(`--ui ${hostText(at)}: ${what}. Choose another port, or 0 for any that is free.`)
  }
}

async function runSimulated(
  flags: RunFlags,
  log: Log,
  signalled: Promise<string>,
  watcher?: ShimWatcher,
  capture?: Capture,
): Promise<void> {
  const { kernelGeneration: kernel, arch = hostArch(), uds, vsockProfile, api, cpus, maxCpus, memory, bootMs, hardware } = flags
  const options = { uds, vsockProfile, api, cpus, maxCpus, memory, bootMs, hardware, kernel, arch, log, watcher }
  await using shim = await startShim(options)
  capture?.follow(shim.manager.client)
  tell(formatAddress(shim.address), api)
  log.info({ signal: await signalled }, 'stopping')
}

async function runQemu(flags: RunFlags, log: Log, signalled: Promise<string>, watcher?: ShimWatcher): Promise<void> {
  const { kernel, initrd, image, console: consolePath, profile, ...options } = flags
  const interrupted = new AbortController()
  void signalled.then((signal) => interrupted.abort(new Error(`stopped by ${signal}`)))
  using consoleFile = consolePath === undefined ? undefined : openConsole(consolePath, log)
  try {
    await using shim = await startQemuShim({
      ...options,
      own: kernel === undefined ? undefined : { kernel, initrd, image },
      console: consoleFile?.write,
      signal: interrupted.signal,
      log,
      watcher,
    })
    tell(formatAddress(shim.address), options.api)
    // A first boot that fails ends the program; later ones are for a reconcile to repeat.
    await Promise.race([shim.machine.launched, signalled])
    log.info({ signal: await signalled }, 'stopping')
  } catch (error) {
    if (!interrupted.signal.aborted) throw error
    // A wait that the signal ended says nothing new.
    if ((error as { code?: unknown }).code !== 'ABORTED') log.warn({ error: messageFor(error) }, 'stopped all the same')
  }
}

async function metricsAt(address: string): Promise<MetricsServer> {
  try {
    return await exposeMetrics(address)
  } catch (error) {
    if (!isMetricsError(error)) throw error
    throw new UsageError(`--metrics ${address}: ${messageFor(error)}`)
  }
}

function tell(address: string, api: string | undefined): void {
  process.stdout.write(`upcall  ${address}\n`)
  if (api !== undefined) process.stdout.write(`api     curl --unix-socket ${api} http://vm/vm\n`)
}

const SIMULATED_ONLY = { arch: '--arch', kernelGeneration: '--kernel-generation', bootMs: '--boot-ms', hardware: '--hardware' }
const QEMU_ONLY = {
  machine: '--machine',
  accel: '--accel',
  kernel: '--kernel',
  initrd: '--initrd',
  image: '--image',
  append: '--append',
  maxMemory: '--max-memory',
  cid: '--cid',
  monitor: '--monitor',
  console: '--console',
  cacheDir: '--cache-dir',
  profile: '--profile',
}

function checkFlags(flags: RunFlags, given: (flag: keyof RunFlags) => boolean): void {
  const refused = Object.entries(flags.qemu ? SIMULATED_ONLY : QEMU_ONLY).find(([flag]) => given(flag as keyof RunFlags))
  if (refused)
    throw new UsageError(
      flags.qemu
        ? `${refused[1]}: is only for a simulated guest. Leave it out, or leave out --qemu.`
        : `${refused[1]}: is only for a guest under QEMU. Leave it out, or pass --qemu.`,
    )
  if (!flags.qemu) return
  const { kernel, initrd, image, memory, maxMemory, profile, machine } = flags
  if (kernel === undefined && (initrd !== undefined || image !== undefined))
    throw new UsageError(
      `--${initrd === undefined ? 'image' : 'initrd'}: needs --kernel. Without --kernel, the default image boots.`,
    )
  if (profile && kernel === undefined)
    throw new UsageError(
      '--profile dragonball: needs --kernel. docs/patched-kernel.md tells how to build a kernel with the upcall patches.',
    )
  if (profile && given('machine') && machine !== 'microvm')
    throw new UsageError(
      `--machine ${machine}: does not go with --profile dragonball, which is a microvm. Leave out one of the two.`,
    )
  if (!profile && machine === 'microvm' && given('maxCpus') && flags.maxCpus > 1)
    throw new UsageError(
      `--max-cpus ${flags.maxCpus}: a microvm has no ACPI table of CPUs, so a stock kernel finds only one CPU. Use --machine q35 or pc.`,
    )
  if ((profile || machine === 'microvm') && maxMemory !== undefined)
    throw new UsageError("--max-memory: a microvm's memory stays as it is. Use --machine q35 or pc.")
  if (profile && given('cpus') && given('maxCpus') && flags.cpus !== flags.maxCpus)
    throw new UsageError(
      '--cpus: must equal --max-cpus with --profile dragonball, where all vCPUs run at boot. Leave out one of the two; a resize unplugs vCPUs later.',
    )
  if (memory % MEMORY_BLOCK !== 0) throw new UsageError('--memory: must be an even number of MiB under --qemu, such as 512M')
  if (maxMemory !== undefined && (maxMemory < memory || maxMemory % MEMORY_BLOCK !== 0))
    throw new UsageError('--max-memory: must be at least --memory, and an even number of MiB, such as 2G')
  for (const [flag, path] of Object.entries({ kernel, initrd, image })) {
    const what = path === undefined ? 'file' : whatIsAt(path)
    if (what !== 'file') throw new UsageError(`--${flag} ${path}: ${what}. Give a file that can be read.`)
  }
}

/** What is made at one of these paths would take the place of what is at another. */
function checkPaths({ uds, api, monitor, console, pcap }: RunFlags): void {
  const taken = new Map<string, string>()
  for (const [flag, path] of Object.entries({ uds, api, monitor, console, pcap })) {
    if (path === undefined) continue
    if (path === '') throw new UsageError(`--${flag}: is empty. Give a path.`)
    const other = taken.get(resolve(path))
    if (other !== undefined) throw new UsageError(`--${flag} ${path}: is the path of --${other} too. Choose another path.`)
    taken.set(resolve(path), flag)
    if (flag !== 'console' && flag !== 'pcap') checkSocketPath(flag, path)
  }
}

function checkSocketPath(flag: string, path: string): void {
  const { length } = Buffer.from(path)
  if (flag === 'monitor' && length > UNIX_PATH_MAX)
    throw new UsageError(
      `--${flag} ${path}: has ${length} bytes, and QEMU's socket has a path of at most ${UNIX_PATH_MAX}. Choose a shorter path.`,
    )
  const directory = statOf(dirname(resolve(path)))
  if (!directory?.isDirectory()) throw new UsageError(`--${flag} ${path}: its directory does not exist. Create it first.`)
  const there = statOf(path)
  if (there && !there.isSocket())
    throw new UsageError(`--${flag} ${path}: exists and is not a socket. Move it away, or choose another path.`)
}

function whatIsAt(path: string): string {
  try {
    accessSync(path, constants.R_OK)
    return statOf(path)?.isDirectory() ? 'is a directory' : 'file'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'does not exist' : 'cannot be read'
  }
}

function openConsole(path: string, log: Log): ConsoleLog {
  try {
    return openLogFile(path, (why) => log.error({ path, why }, 'the console is no longer written to its file'))
  } catch (error) {
    throw new UsageError(`--console ${path}: cannot be written (${errnoOf(error)}). Give a file that can be written.`)
  }
}

function hostArch(): Arch {
  const arch = { x64: 'x86_64', arm64: 'aarch64' }[process.arch as string]
  if (arch === undefined)
    throw new UsageError(`--arch: this machine is ${process.arch}; a guest is x86_64 or aarch64. Pass one of the two.`)
  return arch as Arch
}
