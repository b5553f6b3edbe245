import { formatBdf } from '@upcall/device-manager'
import type { Arch } from '@upcall/wire'
import type { Books, DeviceStatus } from './devices.js'
import type { Window } from './mmio-space.js'
import type { BlockDevice, GuestReport, Spares } from './port.js'

/**
 * `booting`: the guest does not serve upcalls yet. `running`: it can be asked. `reconnecting`: it has booted, but there is no connection
 * to it at the moment. `paused`: its vCPUs are stopped. `dead`: its process is gone.
 */
export type VmState = 'booting' | 'running' | 'reconnecting' | 'paused' | 'dead'

/** A window as JSON has it: hexadecimal strings, since JSON's numbers are not exact beyond 2^53. */
export interface WindowView {
  base: string
  size: string
  irq: number
}

/** The machine, as `GET /vm` shows it. */
export interface VmView {
  state: VmState
  arch: Arch
  /** What the VMM believes. `memory` in bytes. */
  believed: {
    cpus: { present: number[]; unknown: number[]; max: number }
    memory: number
    mmio: (WindowView & { id: string; path_on_host: string; is_read_only: boolean; status: DeviceStatus })[]
    pci: { id: string; bdf: string; path_on_host?: string; is_read_only?: boolean; status: DeviceStatus }[]
    /** Plugged in, and not in use: the guest let go of them and has not ejected them. */
    spares: { cpus: number[]; pci: string[] }
  }
  /** What the guest says it has; null if it cannot tell. */
  guest: {
    booted: boolean
    paused: boolean
    crashed: boolean
    /** A real guest does not say which are `present`. */
    cpus: { online: number[]; present?: number[] }
    mmio: WindowView[]
    pci: string[]
    /** Of a real guest: bytes, as /proc/meminfo has them. */
    memory?: number
    /** Of a real guest. */
    blocks?: BlockDevice[]
  } | null
}

export function viewBooks(
  { cpus, drives, pci }: Books,
  { max, memory, spares }: { max: number; memory: number; spares: Spares },
): VmView['believed'] {
  return {
    cpus: { present: [...cpus.present], unknown: [...cpus.unknown], max },
    memory,
    mmio: [...drives.values()].map(({ id, window, pathOnHost, isReadOnly, status }) => ({
      id,
      ...viewWindow(window),
      path_on_host: pathOnHost,
      is_read_only: isReadOnly,
      status,
    })),
    pci: [...pci.values()].map(({ id, place, disk, status }) => ({
      id,
      bdf: formatBdf(place),
      ...(disk && { path_on_host: disk.pathOnHost, is_read_only: disk.isReadOnly }),
      status,
    })),
    spares: { cpus: [...spares.cpus], pci: spares.pci.map(formatBdf) },
  }
}

export function viewGuest(report: GuestReport): VmView['guest'] {
  const { booted, paused, crashed, cpus, mmio, pci, memory, blocks } = report
  return {
    booted,
    paused,
    crashed,
    cpus: { online: [...cpus.online], ...(cpus.present && { present: [...cpus.present] }) },
    mmio: mmio.map(viewWindow),
    pci: pci.map(formatBdf),
    ...(memory !== undefined && { memory }),
    ...(blocks && { blocks: [...blocks] }),
  }
}

export function viewWindow({ base, size, irq }: Window): WindowView {
  return { base: `0x${base.toString(16)}`, size: `0x${size.toString(16)}`, irq }
}
