// Devices in and out of a running QEMU, over QMP. `device_del` only asks the guest; DEVICE_DELETED says that the guest has let go. Without
// ACPI in the guest that comes with its next reset, if ever.
import { QemuError, type QmpClient, QmpCommandError } from '@upcall/qemu'
import type { PciDevice } from '../devices.js'
import { VmError } from '../error.js'
import { blockName, blockNode, cpuDevice, MEMORY_DEVICE, pciDevice, pciId, type ShimMachine } from './hardware.js'

const PERIPHERAL = '/machine/peripheral'

interface HotpluggableCpu {
  readonly type: string
  readonly props: Readonly<Record<string, number>>
  /** Only if the CPU is plugged in. */
  readonly 'qom-path'?: string
}

export async function plugCpu(qmp: QmpClient, id: number): Promise<void> {
  const cpu = await findCpu(qmp, id)
  // An earlier command of ours that was not answered in time has plugged it in.
  if (cpu['qom-path'] !== undefined) return
  await qmp.execute('device_add', { ...cpuDevice(cpu.type, id), ...cpu.props })
}

/** Resolves with whether the guest ejected it in time. */
export async function unplugCpu(qmp: QmpClient, id: number, timeoutMs: number): Promise<boolean> {
  const path = (await findCpu(qmp, id))['qom-path']
  return path === undefined || unplug(qmp, path, timeoutMs)
}

async function findCpu(qmp: QmpClient, id: number): Promise<HotpluggableCpu> {
  const all = await qmp.execute<HotpluggableCpu[]>('query-hotpluggable-cpus')
  const cpu = all.find(({ props }) => props['core-id'] === id)
  if (!cpu) throw new Error(`QEMU has no place for a vCPU with the id ${id}`)
  return cpu
}

/** @throws VmError `CONFLICT` if another device or process holds the disk's file. */
export async function plugPci(qmp: QmpClient, device: PciDevice, machine: ShimMachine): Promise<void> {
  const { id, disk } = device
  if (disk) await addBlockNode(qmp, blockNode(id, disk), disk.pathOnHost)
  try {
    await qmp.execute('device_add', pciDevice(device, machine))
  } catch (error) {
    if (!disk && isDuplicate(error) && (await isThere(qmp, device))) return
    if (disk) await removeBlockNode(qmp, blockName(id))
    if (!disk || !(error instanceof QmpCommandError) || error.reason !== 'lock') throw error
    throw new VmError({
      ...{ code: 'CONFLICT', subject: disk.pathOnHost, what: `QEMU cannot take hold of the file: ${error.what}` },
      next: 'Another device or another process has it; let go of it there.',
      cause: error,
    })
  }
}

/** Whether that device is at its place: a command whose answer was lost may have plugged it in. */
async function isThere(qmp: QmpClient, { id, place }: PciDevice): Promise<boolean> {
  return (await listPci(qmp)).some((found) => found.id === pciId(id) && found.bus === place.bus && found.devfn === place.devfn)
}

function isDuplicate(error: unknown): boolean {
  return error instanceof QmpCommandError && error.reason === 'duplicate-id'
}

/** Resolves with whether the guest ejected it in time. */
export function unplugPci(qmp: QmpClient, id: string, timeoutMs: number): Promise<boolean> {
  return unplug(qmp, `${PERIPHERAL}/${pciId(id)}`, timeoutMs)
}

/** @throws VmError `INVALID` if QEMU cannot open the file. */
export async function addBlockNode(qmp: QmpClient, node: Record<string, unknown>, pathOnHost: string): Promise<void> {
  try {
    await qmp.execute('blockdev-add', node)
  } catch (cause) {
    if (!(cause instanceof QmpCommandError)) throw cause
    throw new VmError({
      ...{ code: 'INVALID', subject: pathOnHost, what: `QEMU cannot use the file: ${cause.what}` },
      next: 'Give a file that QEMU can open.',
      cause,
    })
  }
}

/** A node that is in use, or gone already, is left alone. */
export async function removeBlockNode(qmp: QmpClient, name: string): Promise<void> {
  await qmp.execute('blockdev-del', { 'node-name': name }).catch(() => {})
}

/** All functions, on the buses of bridges too: where they are, and the id of their device if it has one. */
export async function listPci(qmp: QmpClient): Promise<{ bus: number; devfn: number; id: string }[]> {
  const buses = await qmp.execute<{ bus: number; devices: PciInfo[] }[]>('query-pci')
  const visit = ({ bus, slot, function: fn, qdev_id: id, pci_bridge: bridge }: PciInfo): Found[] => [
    { bus, devfn: (slot << 3) | fn, id },
    ...(bridge?.devices ?? []).flatMap(visit),
  ]
  return buses.flatMap(({ devices }) => devices.flatMap(visit))
}

type Found = { bus: number; devfn: number; id: string }

interface PciInfo {
  readonly bus: number
  readonly slot: number
  readonly function: number
  readonly qdev_id: string
  readonly pci_bridge?: { readonly devices?: readonly PciInfo[] }
}

/** Bytes that the guest has taken so far. */
export async function pluggedMemory(qmp: QmpClient): Promise<number> {
  const devices = await qmp.execute<{ type: string; data: { id?: string; size: number } }[]>('query-memory-devices')
  return devices.find(({ data }) => data.id === MEMORY_DEVICE)?.data.size ?? 0
}

/** Asks the guest to take or give memory until it has so many bytes. Rejects with QmpCommandError if QEMU has not even asked. */
export async function requestMemory(qmp: QmpClient, bytes: number): Promise<void> {
  await qmp.execute('qom-set', { path: `${PERIPHERAL}/${MEMORY_DEVICE}`, property: 'requested-size', value: bytes })
}

/** Resolves with how many bytes the guest has: as soon as it has so many, or after `timeoutMs`. */
export async function awaitMemory(qmp: QmpClient, bytes: number, timeoutMs: number): Promise<number> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const left = deadline - performance.now()
    const looked = new AbortController()
    // QEMU holds events of this kind back for up to a second.
    const bounds = { timeoutMs: Math.max(1, Math.min(500, left)), signal: looked.signal }
    const changed = qmp.nextEvent('MEMORY_DEVICE_SIZE_CHANGE', bounds).catch(() => {})
    try {
      const size = await pluggedMemory(qmp)
      if (size === bytes || left <= 0) return size
      await changed
    } finally {
      looked.abort()
    }
  }
}

/** After anything but an answer, QEMU may still carry a command out. */
export function mayBeDone(error: unknown): boolean {
  return error instanceof QemuError && !(error instanceof QmpCommandError)
}

/** Resolves with whether the device is gone. It is if it never came, or if another client has unplugged it. */
async function unplug(qmp: QmpClient, path: string, timeoutMs: number): Promise<boolean> {
  const ended = new AbortController()
  const { signal } = ended
  // Of a vCPU, QEMU 7.2 tells of its local APIC only.
  const accepts = ({ data }: { data: Readonly<Record<string, unknown>> }) =>
    data.path === path || String(data.path).startsWith(`${path}/`)
  const deleted = qmp.nextEvent('DEVICE_DELETED', { timeoutMs, signal, accepts }).then(() => true)
  const refused = qmp.nextEvent('DEVICE_UNPLUG_GUEST_ERROR', { timeoutMs, signal, accepts }).then(() => false)
  deleted.catch(() => {})
  refused.catch(() => {})
  try {
    await qmp.execute('device_del', { id: path }).catch((error) => {
      // The guest was asked before: the event to wait for is the same.
      if (!(error instanceof QmpCommandError) || error.reason !== 'unplug-in-progress') throw error
    })
    return await Promise.race([deleted, refused])
  } catch (error) {
    if (isNotFound(error)) return true
    if (error instanceof QmpCommandError) return false
    // The event may have come before this wait.
    return await qmp.execute('qom-list', { path }).then(() => false, isNotFound)
  } finally {
    ended.abort()
  }
}

function isNotFound(error: unknown): boolean {
  return error instanceof QmpCommandError && error.errorClass === 'DeviceNotFound'
}
