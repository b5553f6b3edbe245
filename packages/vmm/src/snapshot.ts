import { formatBdf, parseBdf } from '@upcall/device-manager'
import { checkObject, checkString, integer, wrongType, wrongValue } from '@upcall/foundation/check'
import type { Arch } from '@upcall/wire'
import type { Cpu, DeviceStatus, Disk, Drive, PciDevice } from './devices.js'
import type { Inventory } from './inventory.js'
import type { Window } from './mmio-space.js'

/** A snapshot is taken at any time: what is under way then is `unknown` to those who find it later. */
export type SavedStatus = 'present' | 'unknown'

/** What a `Vm` knows, as a value that JSON can hold. Numbers that JSON may not hold exactly are hexadecimal texts. */
export interface VmSnapshot {
  readonly version: 1
  readonly arch: Arch
  readonly maxCpus: number
  readonly cpus: readonly { readonly id: number; readonly status: SavedStatus }[]
  readonly drives: readonly (Disk & {
    readonly id: string
    readonly window: { readonly base: string; readonly size: string; readonly irq: number }
    readonly status: SavedStatus
  })[]
  readonly pci: readonly {
    readonly id: string
    readonly bdf: string
    readonly disk?: Disk
    readonly status: SavedStatus
  }[]
}

const VERSION = 1
/** APIC ids have eight bits, of which one value addresses all CPUs. */
const MAX_CPUS = 255

/** What a snapshot is made of, and what comes of one. */
export interface VmValue {
  readonly arch: Arch
  readonly maxCpus: number
  readonly inventory: Inventory
}

export function takeSnapshot({ arch, maxCpus, inventory }: VmValue): VmSnapshot {
  const { cpus, drives, pci } = inventory
  return {
    version: VERSION,
    arch,
    maxCpus,
    cpus: [...cpus.values()].map(({ id, status }) => ({ id, status: settled(status) })),
    drives: [...drives.values()].map(({ id, window, pathOnHost, isReadOnly, status }) => ({
      ...{ id, pathOnHost, isReadOnly, status: settled(status) },
      window: { base: hex(window.base), size: hex(window.size), irq: window.irq },
    })),
    pci: [...pci.values()].map(({ id, place, disk, status }) => ({
      ...{ id, bdf: formatBdf(place), status: settled(status) },
      ...(disk && { disk: { pathOnHost: disk.pathOnHost, isReadOnly: disk.isReadOnly } }),
    })),
  }
}

/** @throws TypeError or RangeError that names the field that is wrong. */
export function readSnapshot(value: unknown): VmValue {
  const { version, arch, maxCpus, cpus, drives, pci } = fields('snapshot', value)
  if (version !== VERSION) wrongValue('snapshot.version', String(VERSION), version)
  if (arch !== 'x86_64' && arch !== 'aarch64') wrongValue('snapshot.arch', '"x86_64" or "aarch64"', arch)
  integer('snapshot.maxCpus', maxCpus, { min: 1, max: MAX_CPUS })
  const max = maxCpus as number
  const inventory: Inventory = {
    cpus: unique('snapshot.cpus', cpus, (path, each) => readCpu(path, each, max)),
    drives: unique('snapshot.drives', drives, readDrive),
    pci: unique('snapshot.pci', pci, readPci),
  }
  if (inventory.cpus.get(0)?.status !== 'present') wrongValue('snapshot.cpus', 'a list with vCPU 0, which is present', cpus)
  return { arch, maxCpus: max, inventory }
}

function readCpu(path: string, value: unknown, max: number): Cpu {
  const { id, status } = fields(path, value)
  return { id: integer(`${path}.id`, id, { max: max - 1 }), status: readStatus(`${path}.status`, status) }
}

function readDrive(path: string, value: unknown): Drive {
  const { id, window, status } = fields(path, value)
  return {
    id: text(`${path}.id`, id),
    window: readWindow(`${path}.window`, window),
    ...readDisk(path, value),
    status: readStatus(`${path}.status`, status),
  }
}

function readPci(path: string, value: unknown): PciDevice {
  const { id, bdf, disk, status } = fields(path, value)
  checkString(`${path}.bdf`, bdf)
  return {
    id: text(`${path}.id`, id),
    place: readBdf(`${path}.bdf`, bdf),
    ...(disk !== undefined && { disk: readDisk(`${path}.disk`, disk) }),
    status: readStatus(`${path}.status`, status),
  }
}

function readBdf(path: string, bdf: string): PciDevice['place'] {
  try {
    return parseBdf(bdf)
  } catch {
    return wrongValue(path, 'an address such as "00:05.0"', bdf)
  }
}

function readDisk(path: string, value: unknown): Disk {
  const { pathOnHost, isReadOnly } = fields(path, value)
  if (typeof isReadOnly !== 'boolean') wrongType(`${path}.isReadOnly`, 'true or false', isReadOnly)
  return { pathOnHost: text(`${path}.pathOnHost`, pathOnHost), isReadOnly }
}

function readWindow(path: string, value: unknown): Window {
  const { base, size, irq } = fields(path, value)
  return { base: unhex(`${path}.base`, base), size: unhex(`${path}.size`, size), irq: integer(`${path}.irq`, irq) }
}

function readStatus(path: string, value: unknown): SavedStatus {
  if (value !== 'present' && value !== 'unknown') wrongValue(path, '"present" or "unknown"', value)
  return value
}

function unique<K, E extends { id: K }>(path: string, value: unknown, read: (path: string, each: unknown) => E): Map<K, E> {
  if (!Array.isArray(value)) wrongType(path, 'an array', value)
  const all = new Map<K, E>()
  for (const [at, each] of value.entries()) {
    const entry = read(`${path}[${at}]`, each)
    if (all.has(entry.id)) wrongValue(`${path}[${at}].id`, 'an id that no other has', entry.id)
    all.set(entry.id, entry)
  }
  return all
}

function fields(path: string, value: unknown): Record<string, unknown> {
  checkObject(path, value)
  return value as Record<string, unknown>
}

function text(path: string, value: unknown): string {
  checkString(path, value)
  if (value === '') wrongValue(path, 'a text that is not empty', value)
  return value
}

function settled(status: DeviceStatus): SavedStatus {
  return status === 'present' ? 'present' : 'unknown'
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}

function unhex(path: string, value: unknown): bigint {
  if (typeof value !== 'string' || !/^0x[0-9a-f]{1,16}$/.test(value)) wrongValue(path, 'a text such as "0xd0000000"', value)
  return BigInt(value as string)
}
