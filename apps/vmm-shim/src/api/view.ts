import { formatBdf } from '@upcall/device-manager'
import type { GuestReport, VmBelief, VmView, Window as VmWindow } from '@upcall/vmm'
import type * as v from 'valibot'
import type { VmDescription, Window } from './schemas.js'

/** The body of `GET /vm`. */
export type VmBody = v.InferOutput<typeof VmDescription>

export type WindowBody = v.InferOutput<typeof Window>

export function vmBody({ state, arch, believed, guest }: VmView): VmBody {
  return { state, arch, believed: beliefBody(believed), guest: guest ? guestBody(guest) : null }
}

export function windowBody({ base, size, irq }: VmWindow): WindowBody {
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
