import type { Cpu, Drive, PciDevice } from './devices.js'

/** What the VMM believes that the VM has. */
export interface Inventory {
  readonly cpus: Map<number, Cpu>
  readonly drives: Map<string, Drive>
  readonly pci: Map<string, PciDevice>
}

/** A VM that has booted with so many vCPUs and no devices. */
export function bootInventory(cpus: number): Inventory {
  const ids = Array.from({ length: cpus }, (_, id) => id)
  return { cpus: new Map(ids.map((id) => [id, { id, status: 'present' }])), drives: new Map(), pci: new Map() }
}

/** Ids of the vCPUs that the guest has as far as is known, ascending. A vCPU that is being removed is among them. */
export function presentCpus({ cpus }: Inventory): number[] {
  return idsOf(cpus, ({ status }) => status === 'present' || status === 'removing')
}

/** Ids of the vCPUs that run, and of which it is unknown whether the guest uses them. Ascending. */
export function unknownCpus({ cpus }: Inventory): number[] {
  return idsOf(cpus, isUnknown)
}

export function isUnknown({ status }: { readonly status: string }): boolean {
  return status === 'unknown'
}

function idsOf(cpus: ReadonlyMap<number, Cpu>, accepts: (cpu: Cpu) => boolean): number[] {
  return [...cpus.values()]
    .filter(accepts)
    .map(({ id }) => id)
    .sort((a, b) => a - b)
}
