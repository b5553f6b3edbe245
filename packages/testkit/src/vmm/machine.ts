import type { DeviceManager } from '@upcall/device-manager'
import type { Disk, Machine } from '@upcall/vmm'
import type { Arch } from '@upcall/wire'

/** The abilities of a machine. Its suite leaves out the tests of abilities that it lacks. */
export interface MachineFeatures {
  /** It can have at least three vCPUs. */
  readonly cpus: boolean
  /** It takes virtio-mmio drives while the guest runs. */
  readonly drives: boolean
  /** It takes PCI devices while the guest runs. */
  readonly pci: boolean
  /** Bytes that it can be resized to, other than those at boot. Undefined: its memory stays as it is. */
  readonly memory?: number | undefined
  /** It runs with a `manager`. Without one, the suite tests the hardware alone. */
  readonly guest: boolean
  /** It runs with `kill`. */
  readonly kill: boolean
}

/** A machine that runs. */
export interface RunningMachine {
  readonly machine: Machine
  /** A client of the guest's device manager. */
  readonly manager?: DeviceManager<Arch> | undefined
  /** Ends the guest as a crash would. */
  kill?(): Promise<void> | void
  /** Ends all of it. */
  close(): Promise<void>
}

/** A machine as the suite sees it. */
export interface ComplianceMachine {
  readonly name: string
  readonly features: MachineFeatures
  /** The file of the suite's drives. Default: a path that need not exist. */
  readonly disk?: Disk | undefined
  /**
   * A machine whose guest has booted, with one vCPU and no device. A test that passes leaves the machine so: a machine that takes long to
   * boot may be given out again.
   */
  start(): Promise<RunningMachine>
}
