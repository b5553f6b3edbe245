/** `virt` is aarch64, the others are x86_64. */
export type MachineType = 'pc' | 'q35' | 'microvm' | 'virt'

/** The architectures that guests are booted and images are made for. */
export type GuestArch = 'x86_64' | 'aarch64'

interface ArchFacts {
  qemu: string
  /** The Debian package that holds it. */
  qemuPackage: string
  /** The serial port that the kernel prints to. */
  console: string
  /** Debian's name of the architecture, and its name for library folders. */
  debian: string
  triplet: string
}

export const ARCHES: Readonly<Record<GuestArch, ArchFacts>> = {
  x86_64: {
    ...{ qemu: 'qemu-system-x86_64', qemuPackage: 'qemu-system-x86', console: 'ttyS0' },
    ...{ debian: 'amd64', triplet: 'x86_64-linux-gnu' },
  },
  aarch64: {
    ...{ qemu: 'qemu-system-aarch64', qemuPackage: 'qemu-system-arm', console: 'ttyAMA0' },
    ...{ debian: 'arm64', triplet: 'aarch64-linux-gnu' },
  },
}

/** The architecture on which guest images and kernel modules are made. */
export const HOST: GuestArch = 'x86_64'

/** The architecture of a machine. */
export function archOf(machine: MachineType): GuestArch {
  return machine === 'virt' ? 'aarch64' : 'x86_64'
}
