import type { Arch } from '@upcall/wire'

/** A virtio-mmio window: `base` and `size` in bytes, `irq` as the guest's architecture counts. */
export interface Window {
  readonly base: bigint
  readonly size: bigint
  readonly irq: number
}

/** 4 KiB of config and 4 KiB of doorbell, as in Dragonball. */
export const WINDOW_SIZE = 0x2000n

/** The region is this VMM's choice: below the I/O APIC on x86_64, below RAM on aarch64. */
const FIRST_BASE: Record<Arch, bigint> = { x86_64: 0xd000_0000n, aarch64: 0x4000_0000n }
const WINDOWS = 128n

/** The lines that one device has to itself, and a line that any number of devices may share. Figures: Dragonball. */
const LINES: Record<Arch, { first: number; last: number; shared?: number }> = {
  x86_64: { first: 6, last: 15, shared: 5 },
  // Dragonball shares 32 here, but the kernel shares only 5 (protocol, fact 13), so 32 is a line like the others.
  aarch64: { first: 32, last: 159 },
}

/**
 * The lowest window and line that nothing in `taken` has; undefined if there is none. What is free follows from what is taken, so it
 * cannot be freed twice or forgotten.
 */
export function nextWindow(arch: Arch, taken: readonly Window[]): Window | undefined {
  const irq = nextLine(arch, taken)
  if (irq === undefined) return undefined
  const end = FIRST_BASE[arch] + WINDOWS * WINDOW_SIZE
  for (let base = FIRST_BASE[arch]; base < end; base += WINDOW_SIZE) {
    const window = { base, size: WINDOW_SIZE, irq }
    if (!taken.some((other) => overlaps(window, other))) return window
  }
  return undefined
}

function nextLine(arch: Arch, taken: readonly Window[]): number | undefined {
  const { first, last, shared } = LINES[arch]
  for (let irq = first; irq <= last; irq++) if (!taken.some((window) => window.irq === irq)) return irq
  return shared
}

export function overlaps(a: Window, b: Window): boolean {
  return a.base < b.base + b.size && b.base < a.base + a.size
}

export function sameWindow(a: Window, b: Window): boolean {
  return a.base === b.base && a.size === b.size && a.irq === b.irq
}
