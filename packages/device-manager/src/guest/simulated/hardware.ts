/** The hardware that the VMM provides. The guest finds out by trying. */
export interface SimulatedHardware {
  /** Whether a vCPU answers: by APIC id on x86_64, by CPU number on aarch64. */
  hasCpu(id: number): boolean
  /** Whether a PCI function answers, `devfn` being `slot << 3 | function`. */
  hasPci(bus: number, devfn: number): boolean
}

export const everythingAnswers: SimulatedHardware = { hasCpu: () => true, hasPci: () => true }
