// What the parts of the machine look like: pure, from what the VMM believes and what the guest reports.

import type { VmBody } from '../../src/api/view.js'

/** What the VMM knows of a place for a vCPU or a PCI function. `spare`: plugged in, and the guest has let go of it. */
export type Believed = 'present' | 'unknown' | 'spare' | 'free'

export interface Cell {
  /** The vCPU's id, or the slot's number. */
  id: number
  believed: Believed
  /** Whether the guest has it; undefined if it does not say. */
  guest: boolean | undefined
  /** Whether the two sides differ, although nothing is unknown. */
  differs: boolean
}

/** What one side has and the other does not. */
export interface Difference {
  kind: 'cpu' | 'mmio' | 'pci'
  id: string
  only: 'vmm' | 'guest'
}

export function cpuCells({ believed, guest }: VmBody): Cell[] {
  const [present, unknown, spare] = [believed.cpus.present, believed.cpus.unknown, believed.spares.cpus].map(
    (ids) => new Set(ids),
  )
  const online = guest === null ? undefined : new Set(guest.cpus.online)
  const last = Math.max(believed.cpus.max - 1, ...present!, ...unknown!, ...spare!, ...(online ?? []))
  return Array.from({ length: last + 1 }, (_, id) =>
    cell(id, unknown!.has(id) ? 'unknown' : present!.has(id) ? 'present' : spare!.has(id) ? 'spare' : 'free', online?.has(id)),
  )
}

const SLOTS = 32

/** The slots of PCI bus 0. A slot is taken if one of its functions is. */
export function slotCells({ believed, guest }: VmBody): Cell[] {
  const slots = (bdfs: readonly string[]) => new Set(bdfs.map(slotOfBusZero).filter((slot) => slot !== undefined))
  const unknown = slots(believed.pci.filter(({ status }) => status === 'unknown').map(({ bdf }) => bdf))
  const present = slots(believed.pci.map(({ bdf }) => bdf))
  const spare = slots(believed.spares.pci)
  const inGuest = guest === null ? undefined : slots(guest.pci)
  return Array.from({ length: SLOTS }, (_, id) =>
    cell(id, unknown.has(id) ? 'unknown' : present.has(id) ? 'present' : spare.has(id) ? 'spare' : 'free', inGuest?.has(id)),
  )
}

function cell(id: number, believed: Believed, guest: boolean | undefined): Cell {
  // Spares are out of use, and what is unknown is for a reconcile to settle.
  const differs = guest !== undefined && ((believed === 'present' && !guest) || (believed === 'free' && guest))
  return { id, believed, guest, differs }
}

/** The slot of `00:05.0`; undefined for an address on another bus. */
export function slotOfBusZero(bdf: string): number | undefined {
  const found = /^(?:0000:)?00:([0-9a-f]{2})[.][0-7]$/i.exec(bdf)
  return found ? Number.parseInt(found[1]!, 16) : undefined
}

/** Where the two sides differ while no change is under way. As `POST /vm/reconcile` lists it. */
export function differences({ believed, guest }: VmBody): Difference[] {
  if (guest === null) return []
  const found: Difference[] = []
  const note = (kind: Difference['kind'], id: string, only: Difference['only']) => found.push({ kind, id, only })
  const online = new Set(guest.cpus.online)
  const known = new Set([...believed.cpus.present, ...believed.cpus.unknown])
  for (const id of believed.cpus.present) if (!online.has(id)) note('cpu', String(id), 'vmm')
  for (const id of guest.cpus.online) if (!known.has(id)) note('cpu', String(id), 'guest')
  for (const drive of believed.mmio)
    if (drive.status === 'present' && !guest.mmio.some((window) => sameWindow(window, drive))) note('mmio', drive.id, 'vmm')
  for (const window of guest.mmio)
    if (!believed.mmio.some((drive) => sameWindow(window, drive))) note('mmio', window.base, 'guest')
  for (const { id, bdf, status } of believed.pci) if (status === 'present' && !guest.pci.includes(bdf)) note('pci', id, 'vmm')
  for (const bdf of guest.pci) if (!believed.pci.some((device) => device.bdf === bdf)) note('pci', bdf, 'guest')
  return found
}

interface WindowLike {
  base: string
  size: string
  irq: number
}

export function sameWindow(one: WindowLike, other: WindowLike): boolean {
  return one.base === other.base && one.size === other.size && one.irq === other.irq
}

const NAMES = { cpu: 'vCPU', mmio: 'window', pci: 'PCI device' }

export function difference({ kind, id, only }: Difference): string {
  return `${NAMES[kind]} ${id}: ${only === 'vmm' ? 'the VMM has it, the guest does not' : 'the guest has it, the VMM does not'}`
}

/** How many things it is unknown of whether the guest has them. */
export function unknowns({ believed: { cpus, mmio, pci } }: VmBody): number {
  return cpus.unknown.length + [...mmio, ...pci].filter(({ status }) => status === 'unknown').length
}

/** `0-3, 7`; `none` of no number. */
export function ranges(ids: readonly number[], format: (id: number) => string = String): string {
  const parts: string[] = []
  for (let at = 0; at < ids.length; ) {
    let end = at
    while (ids[end + 1] === ids[end]! + 1) end++
    parts.push(end === at ? format(ids[at]!) : `${format(ids[at]!)}-${format(ids[end]!)}`)
    at = end + 1
  }
  return parts.length === 0 ? 'none' : parts.join(', ')
}

/** The cells of each kind, in words: what a picture of them says. */
export function cellsInWords(cells: readonly Cell[], format?: (id: number) => string): { label: string; ids: string }[] {
  const ids = (of: (cell: Cell) => boolean) => cells.filter(of).map(({ id }) => id)
  const kinds = [
    { label: 'present', ids: ids(({ believed }) => believed === 'present') },
    { label: 'unknown', ids: ids(({ believed }) => believed === 'unknown') },
    { label: 'spare', ids: ids(({ believed }) => believed === 'spare') },
    { label: 'in the guest alone', ids: ids(({ differs, guest }) => differs && guest === true) },
    { label: 'in the VMM alone', ids: ids(({ differs, guest }) => differs && guest === false) },
  ]
  return kinds.filter((kind) => kind.ids.length > 0).map((kind) => ({ label: kind.label, ids: ranges(kind.ids, format) }))
}
