import { formatBdf } from '@upcall/device-manager'
import type { BlockDevice, DeviceStatus, GuestReport, VmBelief, VmState, VmView, Window } from '@upcall/vmm'
import type { Arch } from '@upcall/wire'

/** A window as JSON has it: hexadecimal strings, since JSON's numbers are not exact beyond 2^53. */
export interface WindowBody {
  base: string
  size: string
  irq: number
}

/** The machine, as `GET /vm` shows it. */
export interface VmBody {
  state: VmState
  arch: Arch
  /** What the VMM believes. `memory` in bytes. */
  believed: {
    cpus: { present: number[]; unknown: number[]; max: number }
    memory: number
    mmio: (WindowBody & { id: string; path_on_host: string; is_read_only: boolean; status: DeviceStatus })[]
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
    mmio: WindowBody[]
    pci: string[]
    /** Of a real guest: bytes, as /proc/meminfo has them. */
    memory?: number
    /** Of a real guest. */
    blocks?: BlockDevice[]
  } | null
}

export function vmBody({ state, arch, believed, guest }: VmView): VmBody {
  return { state, arch, believed: beliefBody(believed), guest: guest ? guestBody(guest) : null }
}

export function windowBody({ base, size, irq }: Window): WindowBody {
  return { base: `0x${base.toString(16)}`, size: `0x${size.toString(16)}`, irq }
}

function beliefBody({ cpus, memory, drives, pci, spares }: VmBelief): VmBody['believed'] {
  return {
    cpus: { present: [...cpus.present], unknown: [...cpus.unknown], max: cpus.max },
    memory,
    mmio: drives.map(({ id, window, pathOnHost, isReadOnly, status }) => ({
      id,
      ...windowBody(window),
      path_on_host: pathOnHost,
      is_read_only: isReadOnly,
      status,
    })),
    pci: pci.map(({ id, place, disk, status }) => ({
      id,
      bdf: formatBdf(place),
      ...(disk && { path_on_host: disk.pathOnHost, is_read_only: disk.isReadOnly }),
      status,
    })),
    spares: { cpus: [...spares.cpus], pci: spares.pci.map(formatBdf) },
  }
}

function guestBody({ booted, paused, crashed, cpus, mmio, pci, memory, blocks }: GuestReport): VmBody['guest'] {
  return {
    ...{ booted, paused, crashed },
    cpus: { online: [...cpus.online], ...(cpus.present && { present: [...cpus.present] }) },
    mmio: mmio.map(windowBody),
    pci: pci.map(formatBdf),
    ...(memory !== undefined && { memory }),
    ...(blocks && { blocks: [...blocks] }),
  }
}
