import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { AgentReport } from './messages.js'

const SECTOR = 512

/** What this Linux has, out of procfs and sysfs below `root`. */
export async function reportOn(root = '/'): Promise<AgentReport> {
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
export function windows(iomem: string): AgentReport['mmio'] {
  const found = new Map<string, AgentReport['mmio'][number]>()
  for (const [, first, last] of iomem.matchAll(/^ *([0-9a-f]+)-([0-9a-f]+) : (?:LNRO0005:\d+|virtio-mmio\.\d+)/gm)) {
    const base = BigInt(`0x${first}`)
    const size = BigInt(`0x${last}`) - base + 1n
    found.set(first!, { base: `0x${base.toString(16)}`, size: `0x${size.toString(16)}` })
  }
  return [...found.values()]
}
