import { parseBdf } from '@upcall/device-manager'
import { type KernelVersion, type SimulatedGuest, simulatedGuest } from '@upcall/device-manager/guest'
import { type Arch, isWireError } from '@upcall/wire'
import { UsageError } from '../exit.js'

/** What `upcall serve` can be told of its guest. */
export interface GuestOptions {
  kernel: KernelVersion
  cpus: number
  maxCpus: number
  /** A list, left to right: `all`, `none`, `<quirk>` (on), `no-<quirk>` (off). */
  quirks: string
  /** The PCI functions that answer, in a list; without it every one does. */
  pci?: string | undefined
  /** Milliseconds; until then it is booting. */
  boot?: number | undefined
}

export const kernels: readonly KernelVersion[] = ['5.10', '6.1', '6.12', '6.18']

export function makeGuest(arch: Arch, options: GuestOptions): SimulatedGuest {
  const { kernel, cpus, maxCpus, pci, boot } = options
  const functions = pci === undefined ? undefined : new Set(listOf(pci).map(functionOf))
  try {
    return simulatedGuest({
      arch,
      kernel,
      cpus,
      maxCpus,
      quirks: quirksOf(options.quirks),
      booting: boot !== undefined,
      ...(functions && { hardware: { hasCpu: () => true, hasPci: (bus, devfn) => functions.has((bus << 8) | devfn) } }),
    })
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(`serve: ${error.message}`)
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
        `--quirks: ${JSON.stringify(word)} is not known; use all, none, or ${names.join(', ')}, each also behind no-`,
      )
  }
  return quirks
}

function functionOf(bdf: string): number {
  try {
    const { bus, devfn } = parseBdf(bdf)
    return (bus << 8) | devfn
  } catch (error) {
    if (isWireError(error)) throw new UsageError(`--pci: ${error.message}`)
    throw error
  }
}

function listOf(text: string): string[] {
  return text
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '')
}
