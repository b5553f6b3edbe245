import { release } from 'node:os'
import { parseBdf } from '@upcall/device-manager'
import {
  type GuestBackend,
  type KernelVersion,
  linuxGuest,
  type SimulatedGuest,
  simulatedGuest,
} from '@upcall/device-manager/guest'
import { type Arch, isWireError } from '@upcall/wire'
import { UsageError } from '../errors.js'
import { hostArchOf } from '../options.js'
import { meantOr } from '../suggest.js'

/** The options of `upcall serve` for a simulated guest. */
export interface SimulatedOptions {
  /** Default 6.1. */
  kernel?: KernelVersion | undefined
  /** Default 1. */
  cpus?: number | undefined
  /** Default 256. */
  maxCpus?: number | undefined
  /** A list, left to right: `all` (default), `none`, `<quirk>` (on), `no-<quirk>` (off). */
  quirks?: string | undefined
  /** The PCI functions that answer, in a list; without it every one does. */
  pci?: string | undefined
  /** Milliseconds; until then it is booting. */
  boot?: number | undefined
}

/** The guest that is served. */
export interface GuestOptions extends SimulatedOptions {
  backend: 'simulated' | 'linux'
  /** Of the Linux guest. */
  rollBack: boolean
}

export interface MadeGuest {
  backend: GuestBackend
  /** Ends a simulated guest's boot. */
  boot(): void
  /** For the log. */
  about: { backend: string; kernel: string; cpus?: number; maxCpus?: number }
}

/** The most CPUs of a simulated guest. */
const MAX_CPUS = 256

export const kernels: readonly KernelVersion[] = ['5.10', '6.1', '6.12', '6.18']

const simulatedOnly: Record<keyof SimulatedOptions, string> = {
  kernel: '--kernel',
  cpus: '--cpus',
  maxCpus: '--max-cpus',
  quirks: '--quirks',
  pci: '--pci',
  boot: '--boot',
}

/** @param signal - Ends what a Linux guest waits for. */
export function makeGuest(arch: Arch, options: GuestOptions, signal: AbortSignal): MadeGuest {
  if (options.backend === 'linux') return thisGuest(arch, options, signal)
  if (!options.rollBack)
    throw new UsageError('--no-roll-back', 'is only for --backend linux', 'A simulated guest has --quirks no-partialCpuAdd.')
  const guest = makeSimulatedGuest(arch, options)
  const { kernel, cpus } = guest.state
  const { maxCpus = MAX_CPUS } = options
  return { backend: guest, boot: () => guest.boot(), about: { backend: 'simulated', kernel, cpus: cpus.online.length, maxCpus } }
}

/** The Linux that this program runs in. */
function thisGuest(arch: Arch, options: GuestOptions, signal: AbortSignal): MadeGuest {
  const given = Object.entries(simulatedOnly).find(([name]) => options[name as keyof SimulatedOptions] !== undefined)
  if (given) throw new UsageError(given[1], 'is only for --backend simulated', 'Leave it out.')
  if (process.platform !== 'linux') throw new UsageError('--backend linux', `runs in a Linux guest, not on ${process.platform}`)
  if (arch !== hostArchOf()) throw new UsageError(`--arch ${arch}`, `the Linux guest is this machine, which is ${hostArchOf()}`)
  if (process.getuid?.() !== 0)
    throw new UsageError('--backend linux', 'needs root, to switch CPUs and devices on and off', 'Run it as root in the guest.')
  const backend = linuxGuest({ arch, rollBack: options.rollBack, signal })
  return { backend, boot() {}, about: { backend: 'linux', kernel: release() } }
}

function makeSimulatedGuest(arch: Arch, options: SimulatedOptions): SimulatedGuest {
  const { kernel, cpus, maxCpus, pci, boot, quirks = 'all' } = options
  const functions = pci === undefined ? undefined : new Set(listOf(pci).map(functionOf))
  for (const [flag, count] of Object.entries({ '--cpus': cpus, '--max-cpus': maxCpus }))
    if (count !== undefined && (count < 1 || count > MAX_CPUS))
      throw new UsageError(flag, `must be an integer from 1 to ${MAX_CPUS}, got ${count}`)
  try {
    return simulatedGuest({
      arch,
      kernel,
      cpus,
      maxCpus,
      quirks: quirksOf(quirks),
      booting: boot !== undefined,
      ...(functions && { hardware: { hasCpu: () => true, hasPci: (bus, devfn) => functions.has((bus << 8) | devfn) } }),
    })
  } catch (error) {
    if (error instanceof RangeError) throw UsageError.of('serve', error)
    throw error
  }
}

/** The names are the guest's own; an unknown one is refused with the list of them. */
export function quirksOf(text: string): Record<string, boolean> {
  const names = Object.keys(simulatedGuest({ arch: 'x86_64' }).quirks)
  const quirks: Record<string, boolean> = {}
  for (const word of listOf(text)) {
    const [, off, name] = /^(no-)?(.*)$/.exec(word)!
    if (word === 'all' || word === 'none') for (const each of names) quirks[each] = word === 'all'
    else if (names.includes(name!)) quirks[name!] = off === undefined
    else
      throw new UsageError(
        '--quirks',
        `${JSON.stringify(word)} is not known`,
        meantOr(
          word,
          off ? names.map((each) => `no-${each}`) : ['all', 'none', ...names],
          `Use all, none, or a list of ${names.join(', ')}; no- before a name turns it off.`,
        ),
      )
  }
  return quirks
}

function functionOf(bdf: string): number {
  try {
    const { bus, devfn } = parseBdf(bdf)
    return (bus << 8) | devfn
  } catch (error) {
    if (isWireError(error)) throw UsageError.of('--pci', error)
    throw error
  }
}

function listOf(text: string): string[] {
  return text
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '')
}
