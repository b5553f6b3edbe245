import type { KernelVersion } from '@upcall/device-manager/guest'
import { formatAddress } from '@upcall/vsock'
import type { Arch } from '@upcall/wire'
import { type LOG_LEVELS, stderrLog } from '../log.js'
import { type ShimOptions, startShim } from '../shim.js'
import { nextSignal } from './signals.js'

interface RunFlags {
  uds: string
  api?: string
  arch?: Arch
  cpus: number
  maxCpus: number
  memory: number
  kernelGeneration: KernelVersion
  bootMs: number
  hardware?: ShimOptions['hardware']
  logLevel: (typeof LOG_LEVELS)[number]
}

/** The flags contradict each other. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Serves until a signal comes, and ends everything it started. */
export async function run(flags: RunFlags): Promise<void> {
  const { kernelGeneration: kernel, logLevel, arch = hostArch(), ...options } = flags
  if (options.cpus > options.maxCpus)
    throw new UsageError(`--cpus ${options.cpus}: at most --max-cpus, which is ${options.maxCpus}`)
  if (options.api === options.uds) throw new UsageError(`--api ${options.api}: it cannot be where --uds is; choose another path`)
  using stop = nextSignal()
  const log = stderrLog(logLevel)
  await using shim = await startShim({ ...options, kernel, arch, log })
  process.stdout.write(`upcall  ${formatAddress(shim.address)}\n`)
  if (options.api !== undefined) process.stdout.write(`api     curl --unix-socket ${options.api} http://vm/vm\n`)
  const signal = await stop.signalled
  log.info({ signal }, 'stopping')
}

function hostArch(): Arch {
  const arch = { x64: 'x86_64', arm64: 'aarch64' }[process.arch as string]
  if (arch === undefined) throw new UsageError(`--arch: this machine is ${process.arch}; say x86_64 or aarch64`)
  return arch as Arch
}
