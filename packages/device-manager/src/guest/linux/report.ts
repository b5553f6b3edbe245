import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

const SECTOR = 512

/** What a Linux guest has, as a value that JSON can carry: addresses and sizes of windows are hexadecimal strings. */
export interface LinuxReport {
  /** The APIC ids of the CPUs that are online, in order. x86_64 only: elsewhere the list is empty. */
  readonly cpus: readonly number[]
  /** What the kernel manages, in bytes. */
  readonly memory: number
  /** PCI functions with domain, bus, slot and function, as sysfs names them: `0000:00:05.0`. */
  readonly pci: readonly string[]
  /** The virtio-mmio windows that have a driver's device. Irqs are not told. */
  readonly mmio: readonly { readonly base: string; readonly size: string }[]
  /** Block devices; `size` in bytes. */
  readonly blocks: readonly { readonly name: string; readonly serial: string | null; readonly size: number }[]
}

/**
 * What this Linux has, for a VMM that compares it with what it believes. What cannot be read counts as absent.
 *
 * @param root - A directory with `proc` and `sys`; default `/`.
 */
export async function linuxReport(root = '/'): Promise<LinuxReport> {
  const read = (path: string) =>
    readFile(join(root, path), 'utf8').then(
      (text) => text.trim(),
      () => '',
    )
  const list = (path: string) =>
    readdir(join(root, path)).then(
      (names) => names.sort(),
      () => [],
    )
  const blocks = []
  for (const name of await list('sys/block')) {
    if (/^(loop|ram|zram)/.test(name)) continue
    const serial = await read(`sys/block/${name}/serial`)
    blocks.push({ name, serial: serial || null, size: Number(await read(`sys/block/${name}/size`)) * SECTOR })
  }
  return {
    cpus: apicIds(await read('proc/cpuinfo')),
    memory: Number(/^MemTotal:\s+(\d+) kB$/m.exec(await read('proc/meminfo'))?.[1] ?? 0) * 1024,
    pci: await list('sys/bus/pci/devices'),
    mmio: windows(await read('proc/iomem')),
    blocks,
  }
}

/** /proc/cpuinfo lists the CPUs that are online. */
export function apicIds(cpuinfo: string): number[] {
  return [...cpuinfo.matchAll(/^apicid\s*: (\d+)$/gm)].map(([, id]) => Number(id)).sort((a, b) => a - b)
}

/** The virtio-mmio windows, by the platform devices that /proc/iomem names; their lines it does not tell. */
export function windows(iomem: string): LinuxReport['mmio'] {
  const found = new Map<string, LinuxReport['mmio'][number]>()
  for (const [, first, last] of iomem.matchAll(/^ *([0-9a-f]+)-([0-9a-f]+) : (?:LNRO0005:\d+|virtio-mmio\.\d+)/gm)) {
    const base = BigInt(`0x${first}`)
    const size = BigInt(`0x${last}`) - base + 1n
    found.set(first!, { base: `0x${base.toString(16)}`, size: `0x${size.toString(16)}` })
  }
  return [...found.values()]
}
