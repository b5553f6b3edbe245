import { checkClock, checkObject, checkSignal, checkSwitch } from '@upcall/foundation/check'
import { systemClock } from '@upcall/foundation/clock'
import type { Clock } from '@upcall/server'
import type { Arch } from '@upcall/wire'
import { checkArch } from '../../arch.js'
import type { CpuHotplug, GuestBackend, MmioHotplug, PciHotplug } from '../backend.js'
import { ApicIds } from './apic-ids.js'
import { LinuxCpus } from './cpus.js'
import { ArmCpus } from './cpus-arm.js'
import { X86Cpus } from './cpus-x86.js'
import { type Files, filesBelow } from './files.js'
import { LinuxMmio } from './mmio.js'
import { checkRoot, milliseconds } from './options.js'
import { LinuxPci } from './pci.js'
import { Turns, Waiting } from './waiting.js'

export interface LinuxGuestOptions {
  /** Default: that of the running Node. */
  arch?: Arch | undefined
  /** The directory that holds `sys` and `proc`. Default `/`. */
  root?: string | undefined
  /**
   * Whether a batch of CPUs is rolled back when one of them fails, so that a refusal always means that nothing has changed. Default
   * true; false stops at the CPU that failed, as the patched kernels do.
   */
  rollBack?: boolean | undefined
  /** How long ADD_CPU waits for a CPU that the guest does not know yet, in milliseconds. Default 5000. */
  cpuTimeoutMs?: number | undefined
  /** How long ADD_PCI scans for a function, and how long DEL_PCI waits until it is gone, in milliseconds. Default 2000. */
  pciTimeoutMs?: number | undefined
  /** An operation that takes longer ends its connection, because its outcome is not known. In milliseconds. Default 25000. */
  operationTimeoutMs?: number | undefined
  /** An abort ends all waiting. Operations under way end their connections. */
  signal?: AbortSignal | undefined
  clock?: Clock | undefined
}

/**
 * The guest that this program runs in, with a stock Linux kernel: CPUs and PCI through sysfs, virtio-mmio windows through the module
 * `upcall_mmio` if it is loaded. Needs root. Results and errnos are those of a patched 6.12 kernel without its quirks. Memory blocks are
 * not part of the protocol: see {@link onlineMemory}.
 *
 * An operation whose outcome is not a result of the protocol rejects with a {@link LinuxGuestError}, which ends its connection.
 *
 * @throws TypeError or RangeError that names the wrong option.
 */
export function linuxGuest(options: LinuxGuestOptions = {}): GuestBackend {
  checkObject('options', options)
  const { root = '/' } = options
  checkRoot(root)
  return new LinuxGuest(options, filesBelow(root))
}

export class LinuxGuest implements GuestBackend {
  readonly arch: Arch
  readonly cpu: CpuHotplug
  readonly mmio: MmioHotplug
  readonly pci: PciHotplug

  constructor(options: LinuxGuestOptions, files: Files) {
    const { rollBack = true, operationTimeoutMs = 25_000, clock = systemClock, signal } = options
    const arch = options.arch ?? thisArch()
    checkArch(arch)
    checkSwitch('rollBack', rollBack)
    checkClock(clock)
    checkSignal(signal)
    const cpuTimeoutMs = milliseconds('cpuTimeoutMs', options.cpuTimeoutMs ?? 5000, 0)
    const pciTimeoutMs = milliseconds('pciTimeoutMs', options.pciTimeoutMs ?? 2000, 0)
    milliseconds('operationTimeoutMs', operationTimeoutMs, 1)
    this.arch = arch
    const waiting = new Waiting('linuxGuest', clock, signal)
    const cpus = new LinuxCpus(files)
    const cpuOptions = { waiting, rollBack, cpuTimeoutMs }
    const cpu = this.arch === 'x86_64' ? new X86Cpus(cpus, new ApicIds(files), cpuOptions) : new ArmCpus(cpus, cpuOptions)
    const mmio = new LinuxMmio(files)
    const pci = new LinuxPci(files, { waiting, pciTimeoutMs })
    // Two locks, as in the kernel.
    const devices = new Turns(waiting, operationTimeoutMs)
    const functions = new Turns(waiting, operationTimeoutMs)
    this.cpu = {
      add: (request) => devices.run(request.type, () => cpu.add(request)),
      remove: (request) => devices.run(request.type, () => cpu.remove(request)),
    }
    this.mmio = {
      add: (window) => devices.run(window.type, () => mmio.add(window)),
      remove: (window) => devices.run(window.type, () => mmio.remove(window)),
    }
    this.pci = {
      add: (slot) => functions.run(slot.type, () => pci.add(slot)),
      remove: (slot) => functions.run(slot.type, () => pci.remove(slot)),
    }
  }
}

function thisArch(): Arch {
  if (process.arch === 'x64') return 'x86_64'
  if (process.arch === 'arm64') return 'aarch64'
  throw new RangeError(`arch: must be 'x86_64' or 'aarch64', and this Node is built for ${process.arch}`)
}
