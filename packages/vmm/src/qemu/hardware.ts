import { createHash } from 'node:crypto'
import { type Bdf, formatBdf } from '@upcall/device-manager'
import type { Accelerator, MachineOptions, MachineType } from '@upcall/qemu'
import { unpackDevfn } from '@upcall/wire'
import type { Disk, PciDevice } from '../devices.js'

/** The machines that devices can be plugged into here: those of x86_64. */
export type ShimMachine = Exclude<MachineType, 'virt'>

/** What a guest under QEMU is booted with. Memory is in bytes. */
export interface Hardware {
  readonly machine: ShimMachine
  readonly accel: Accelerator
  /** vCPUs that are plugged in, the boot CPU among them. */
  readonly cpus: readonly number[]
  readonly maxCpus: number
  readonly memory: { readonly boot: number; readonly max: number; readonly plugged: number }
  readonly pci: readonly PciDevice[]
  /** The vhost-user socket of its vsock device. */
  readonly vsockSocket: string
  /** More of QEMU's command line, such as a microvm's slots. */
  readonly args?: readonly string[] | undefined
  /** Where QEMU serves a second monitor, for people and other programs. */
  readonly monitor?: string | undefined
}

/** Granularity of memory that is plugged in. */
export const MEMORY_BLOCK = 2 * 2 ** 20
/** QOM id of the device that memory is plugged into. */
export const MEMORY_DEVICE = 'hotplug-memory'
/** A q35 takes hotplugged devices on the buses of its ports only, one each. */
export const ROOT_PORTS = 8
/** Slots of the ports on the root bus, from here up. */
const FIRST_PORT_SLOT = 0x10

const MIB = 2 ** 20

/** QEMU's options, without the kernel. Pure. */
export function machineOptions(hardware: Hardware): Omit<MachineOptions, 'kernel'> {
  const { machine, accel, cpus, maxCpus, memory, vsockSocket, monitor } = hardware
  const isMicrovm = machine === 'microvm'
  const extensible = !isMicrovm && memory.max > memory.boot
  // A microvm has all of them. The kernel's command line says how many the guest uses.
  const atBoot = isMicrovm ? maxCpus : contiguous(cpus)
  // A guest that can have one vCPU only would run without memory barriers: see MachineOptions.maxCpus of @upcall/qemu.
  const possible = accel === 'tcg' ? Math.max(maxCpus, 2) : maxCpus
  return {
    machine,
    // The kernel's command line tells the guest its windows (launch.ts): the spare ones are not for the guest to find.
    ...(isMicrovm && { machineOptions: ['acpi=off', 'auto-kernel-cmdline=off'] }),
    accel,
    memory: mebibytes(memory.boot),
    ...(extensible && { maxMemory: { slots: 1, size: mebibytes(memory.max) } }),
    sharedMemory: true,
    cpus: atBoot,
    maxCpus: possible,
    chardevs: [`socket,id=vsock,path=${asValue(vsockSocket)}`],
    devices: [
      JSON.stringify({ driver: isMicrovm ? 'vhost-user-vsock-device' : 'vhost-user-vsock-pci', id: 'vsock', chardev: 'vsock' }),
      ...(machine === 'q35' ? rootPorts() : []),
      ...(extensible ? [memoryDevice(memory.plugged)] : []),
      ...(isMicrovm ? [] : cpus.filter((id) => id >= atBoot).map((id) => JSON.stringify(cpuDevice(cpuType(accel), id)))),
      ...hardware.pci.map((device) => JSON.stringify(pciDevice(device, machine))),
    ],
    args: [
      // The ids of the guest's vCPUs are APIC ids then, whatever the machine's version prefers.
      ...['-smp', `cpus=${atBoot},maxcpus=${possible},sockets=1,cores=${possible},threads=1`],
      ...(extensible
        ? ['-object', `memory-backend-memfd,id=${MEMORY_DEVICE}-ram,size=${mebibytes(memory.max - memory.boot)},share=on`]
        : []),
      ...hardware.pci.flatMap(({ id, disk }) => (disk ? ['-blockdev', JSON.stringify(blockNode(id, disk))] : [])),
      ...(hardware.args ?? []),
      ...(monitor === undefined ? [] : ['-qmp', `unix:${asValue(monitor)},server=on,wait=off`]),
    ],
  }
}

/** The arguments of `device_add`, or of `-device`. */
export function pciDevice({ id, place, disk }: PciDevice, machine: ShimMachine): Record<string, unknown> {
  const { slot, function: fn } = unpackDevfn(place.devfn)
  const at = machine === 'q35' ? { bus: rootPort(place.bus) } : { bus: 'pci.0', addr: `0x${slot.toString(16)}.${fn}` }
  if (!disk) return { driver: 'virtio-rng-pci', id: pciId(id), ...at }
  // The guest reads it from /sys/block/<disk>/serial, which has 20 bytes.
  return { driver: 'virtio-blk-pci', id: pciId(id), drive: blockName(id), serial: id.slice(0, 20), ...at }
}

/** The arguments of `blockdev-add`, or of `-blockdev`. */
export function blockNode(id: string, { pathOnHost: filename, isReadOnly }: Disk): Record<string, unknown> {
  return {
    driver: /\.qcow2$/i.test(filename) ? 'qcow2' : 'raw',
    'node-name': blockName(id),
    'read-only': isReadOnly,
    file: { driver: 'file', filename },
  }
}

/** The arguments of `device_add`, or of `-device`, for the CPU with this APIC id. */
export function cpuDevice(driver: string, id: number): Record<string, unknown> {
  return { driver, id: `cpu-${id}`, 'socket-id': 0, 'core-id': id, 'thread-id': 0 }
}

export function pciId(id: string): string {
  return `pci-${id}`
}

/** Node names have 31 bytes and few characters; the ids of the API may have more. */
export function blockName(id: string): string {
  return `disk-${createHash('sha256').update(id).digest('hex').slice(0, 16)}`
}

/** The port that leads to that bus. */
export function rootPort(bus: number): string {
  return `port-${bus}`
}

/** Where a q35 takes devices: function 0 of slot 0 on the bus of each port. */
export function portPlaces(): Bdf[] {
  return Array.from({ length: ROOT_PORTS }, (_, at) => ({ bus: at + 1, devfn: 0 }))
}

/** For messages. */
export function listPlaces(places: readonly Bdf[]): string {
  return places.map(formatBdf).join(', ')
}

function rootPorts(): string[] {
  return portPlaces().map(({ bus }) =>
    JSON.stringify({
      driver: 'pcie-root-port',
      id: rootPort(bus),
      bus: 'pcie.0',
      addr: `0x${(FIRST_PORT_SLOT + bus - 1).toString(16)}`,
      chassis: bus,
      slot: bus,
    }),
  )
}

function memoryDevice(plugged: number): string {
  return JSON.stringify({
    driver: 'virtio-mem-pci',
    id: MEMORY_DEVICE,
    memdev: `${MEMORY_DEVICE}-ram`,
    'block-size': MEMORY_BLOCK,
    'requested-size': plugged,
  })
}

function cpuType(accel: Accelerator): string {
  return accel === 'kvm' ? 'host-x86_64-cpu' : 'max-x86_64-cpu'
}

/** How many ids from 0 up have no gap. */
function contiguous(cpus: readonly number[]): number {
  const ids = new Set(cpus)
  let count = 0
  while (ids.has(count)) count++
  return count
}

/** In QEMU's notation of options a comma ends a value. Two commas stand for a comma in it. */
function asValue(text: string): string {
  return text.replaceAll(',', ',,')
}

function mebibytes(bytes: number): string {
  return `${bytes / MIB}M`
}
