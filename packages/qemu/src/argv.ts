import {
  checkObject,
  checkOneOf,
  checkOptionalString,
  checkOptionalStrings,
  checkString,
  checkSwitch,
  integer,
  wrongType,
  wrongValue,
} from '@upcall/foundation/check'
import { ARCHES, archOf, type GuestArch, type MachineType } from './arch.js'

export type Accelerator = 'tcg' | 'kvm'

/** A raw or qcow2 file that a virtio-blk device gives to the guest. */
export interface Drive {
  path: string
  /** Also the virtio serial, which the guest reads from /sys/block/<disk>/serial. At most 20 bytes: a letter, then letters, digits, `.`, `_`, `-`. */
  id: string
  /** Default false. Read-only drives can be shared by several guests. */
  readOnly?: boolean | undefined
  /** Default `raw`. */
  format?: 'raw' | 'qcow2' | undefined
}

/** What the machine is made of. All of it, and nothing else, ends up in QEMU's command line. */
export interface MachineOptions {
  /** Default `q35`. microvm sometimes hangs at boot under emulation; `bootGuest` starts those again. */
  machine?: MachineType | undefined
  /** More machine properties, e.g. `['acpi=on', 'auto-kernel-cmdline=off']`. */
  machineOptions?: readonly string[] | undefined
  /** Default `tcg`: software emulation, which needs no rights and no hardware. */
  accel?: Accelerator | undefined
  /** CPU model; default under tcg: `max`, without what emulation makes slow; under kvm: `host`. */
  cpu?: string | undefined
  /** RAM at boot in QEMU's notation, e.g. `512M` or `1G`. Default `256M`. */
  memory?: string | undefined
  /** Room for memory hotplug. */
  maxMemory?: { slots: number; size: string } | undefined
  /** Backs the RAM with a shared memfd, as vhost-user devices need. Default false. */
  sharedMemory?: boolean | undefined
  /** vCPUs at boot; default 1. */
  cpus?: number | undefined
  /**
   * vCPUs that hotplug may reach; default `cpus`, under tcg at least 2. QEMU before 8.1 leaves out the memory barriers of a guest that
   * can have one vCPU only, and so such a guest can miss what a device in another process does ("tcg: Do not elide memory barriers
   * for !CF_PARALLEL in system mode", QEMU c914d46d0a64).
   */
  maxCpus?: number | undefined
  /** A bzImage, or an ELF image with a PVH note; for `virt` an Image, compressed or not. */
  kernel: string
  initrd?: string | undefined
  /**
   * Kernel command line. `console=ttyS0 panic=-1` (`virt`: ttyAMA0) goes in front of it unless it names a console itself, and for an
   * emulated x86_64 guest `no_timer_check`.
   */
  append?: string | undefined
  drives?: readonly Drive[] | undefined
  /** Names of virtio-serial ports, each a duplex stream here and /dev/virtio-ports/<name> (where udev runs) in the guest. */
  ports?: readonly string[] | undefined
  /** Arguments of `-chardev`, e.g. `socket,id=vs,path=…`. */
  chardevs?: readonly string[] | undefined
  /** Arguments of `-device`, in order. */
  devices?: readonly string[] | undefined
  /** More of QEMU's own command line, last. */
  args?: readonly string[] | undefined
  /** Whether a guest that reboots may start again. Default false: QEMU exits, on a panic too. */
  reboot?: boolean | undefined
}

/** The inherited descriptors that QEMU talks over, as their numbers in the QEMU process. */
export interface ArgvDescriptors {
  console: number
  qmp: number
  /** One per name in `ports`, in that order. */
  ports: readonly number[]
}

/**
 * x86_64 without ERMS and FSRM: a kernel that finds them copies memory by `rep movsb`, which emulation does byte by byte. Bytes through a
 * vsock took 2 to 4 times as long. aarch64 with a cheaper algorithm for pointer authentication than the one of real CPUs.
 */
const EMULATED_CPU: Record<GuestArch, string> = { x86_64: 'max,-erms,-fsrm', aarch64: 'max,pauth-impdef=on' }

/** Options → QEMU's command line, without the program. Pure. @throws TypeError, RangeError */
export function qemuArgv(options: MachineOptions, fds: ArgvDescriptors): string[] {
  checkObject('options', options)
  for (const name of ['cpu', 'initrd', 'append'] as const) checkOptionalString(name, options[name])
  for (const name of ['machineOptions', 'chardevs', 'devices', 'args', 'ports'] as const)
    checkOptionalStrings(name, options[name])
  for (const name of ['sharedMemory', 'reboot'] as const) checkSwitch(name, options[name])
  const { machine = 'q35', accel = 'tcg', chardevs = [], devices = [], args = [] } = options
  checkOneOf('machine', machine, ['pc', 'q35', 'microvm', 'virt'])
  checkOneOf('accel', accel, ['tcg', 'kvm'])
  checkPath('kernel', options.kernel, 'the path of a kernel image')
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...(options.reboot ? [] : ['-no-reboot']),
    ...['-accel', accel, '-cpu', options.cpu ?? (accel === 'kvm' ? 'host' : EMULATED_CPU[archOf(machine)])],
    ...machineArgs(options, machine),
    ...['-kernel', options.kernel, ...(options.initrd === undefined ? [] : ['-initrd', options.initrd])],
    ...['-append', kernelCommandLine(machine, accel, options.append)],
    ...['-chardev', `socket,id=console,fd=${fds.console}`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=qmp,fd=${fds.qmp}`, '-mon', 'chardev=qmp,mode=control'],
    ...portArgs(options.ports ?? [], machine, fds.ports),
    ...chardevs.flatMap((chardev) => ['-chardev', chardev]),
    ...driveArgs(options.drives ?? [], machine),
    ...devices.flatMap((device) => ['-device', device]),
    ...args,
  ]
}

function machineArgs(options: MachineOptions, machine: MachineType): string[] {
  const { memory = '256M', maxMemory, cpus = 1, sharedMemory = false, machineOptions = [] } = options
  size('memory', memory)
  integer('cpus', cpus, { min: 1 })
  const { maxCpus = options.accel === 'kvm' ? cpus : Math.max(cpus, 2) } = options
  integer('maxCpus', maxCpus, { min: cpus })
  // Neither device is of use to a server guest, and each costs time when it is emulated.
  const properties = machine === 'pc' || machine === 'q35' ? ['vmport=off', 'hpet=off'] : []
  if (sharedMemory) properties.push('memory-backend=mem0')
  let ram = `size=${memory}`
  if (maxMemory !== undefined) {
    checkObject('maxMemory', maxMemory, 'an object with slots and size')
    size('maxMemory.size', maxMemory.size)
    integer('maxMemory.slots', maxMemory.slots, { min: 1 })
    ram += `,slots=${maxMemory.slots},maxmem=${maxMemory.size}`
  }
  return [
    ...['-machine', [machine, ...properties, ...machineOptions].join(',')],
    ...['-smp', `cpus=${cpus},maxcpus=${maxCpus}`],
    ...['-m', ram],
    ...(sharedMemory ? ['-object', `memory-backend-memfd,id=mem0,size=${memory},share=on`] : []),
  ]
}

function kernelCommandLine(machine: MachineType, accel: Accelerator, append = ''): string {
  if (/(^|\s)console=/.test(append)) return append.trim()
  // An emulated guest that gets no CPU time while its kernel checks the timer panics: "IO-APIC + timer doesn't work!".
  const timer = accel === 'tcg' && archOf(machine) === 'x86_64' ? ' no_timer_check' : ''
  return `console=${ARCHES[archOf(machine)].console} panic=-1${timer} ${append}`.trim()
}

/** microvm has no PCI: its virtio devices sit on the virtio-mmio bus, under another name. */
function virtio(device: string, machine: MachineType): string {
  return `virtio-${device}-${machine === 'microvm' ? 'device' : 'pci'}`
}

function portArgs(ports: readonly string[], machine: MachineType, fds: readonly number[]): string[] {
  if (ports.length === 0) return []
  if (ports.length > 30) wrongValue('ports', 'at most 30 names', ports)
  allDiffer('ports', ports)
  return [
    ...['-device', `${virtio('serial', machine)},id=ports`],
    ...ports.flatMap((name, i) => [
      ...['-chardev', `socket,id=port${i},fd=${fds[i]}`],
      ...['-device', `virtserialport,bus=ports.0,nr=${i + 1},chardev=port${i},name=${token('ports', name)}`],
    ]),
  ]
}

function driveArgs(drives: readonly Drive[], machine: MachineType): string[] {
  if (!Array.isArray(drives)) wrongType('drives', 'an array of drives', drives)
  for (const drive of drives) checkObject('drives[]', drive, 'an object with id and path')
  allDiffer(
    'drives[].id',
    drives.map(({ id }) => id),
  )
  return drives.flatMap(({ id, path, readOnly = false, format = 'raw' }: Drive) => {
    token('drives[].id', id)
    checkPath('drives[].path', path, 'the path of a file')
    checkOneOf('drives[].format', format, ['raw', 'qcow2'])
    checkSwitch('drives[].readOnly', readOnly)
    if (id.length > 20) wrongValue('drives[].id', 'at most 20 bytes', id)
    const node = { driver: format, 'node-name': `drive-${id}`, 'read-only': readOnly, file: { driver: 'file', filename: path } }
    return ['-blockdev', JSON.stringify(node), '-device', `${virtio('blk', machine)},id=${id},drive=drive-${id},serial=${id}`]
  })
}

const TOKEN = 'a letter, then letters, digits, ".", "_", "-"'

function token(name: string, value: string): string {
  checkString(name, value, TOKEN)
  if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(value)) wrongValue(name, TOKEN, value)
  return value
}

function size(name: string, value: string): void {
  const allowed = 'a number with K, M, G or T, such as 512M'
  checkString(name, value, allowed)
  if (!/^[1-9][0-9]*[KMGT]$/.test(value)) wrongValue(name, allowed, value)
}

function checkPath(name: string, value: unknown, allowed: string): void {
  checkString(name, value, allowed)
  if (value === '') wrongValue(name, allowed, value)
}

function allDiffer(name: string, values: readonly string[]): void {
  const twice = values.find((value, at) => values.indexOf(value) !== at)
  if (twice !== undefined) wrongValue(name, 'different each time', twice)
}
