import { show, showInteger } from '@upcall/foundation/show'
import { copyOf, getU32, getU64, putU32, putU64 } from './bytes.js'
import { checkArch, integer, load, u64 } from './check.js'
import { type Arch, DEFAULT_APIC_VERSION, HEADER_SIZE, MAX_REQUEST_LOAD, MessageType } from './constants.js'
import { WireError } from './error.js'
import { blankMessage, loadApart, messageHeader, putHeader } from './header.js'

/** vCPUs by local APIC id, which in Dragonball is the vCPU's index. From 1 to 255 distinct ids, each from 0 to 255. */
export interface X86CpuRequest {
  type: 'ADD_CPU' | 'DEL_CPU'
  apicIds: readonly number[]
  /** The local APIC's version, one byte. Default 0x14. Only ADD_CPU on Linux 5.10 and 6.1 reads it. */
  apicVersion?: number | undefined
}

/** A number of vCPUs, from 1 to 255. On aarch64 the kernel chooses which: it counts up from the online ones. */
export interface ArmCpuRequest {
  type: 'ADD_CPU' | 'DEL_CPU'
  count: number
}

/** vCPUs, as the architecture names them. */
export type CpuRequest<A extends Arch = Arch> = A extends 'x86_64' ? X86CpuRequest : ArmCpuRequest

/** A virtio-mmio window. `base` and `size` in bytes, `irq` the line on x86_64 (0 is refused), the GIC SPI number on aarch64. */
export interface MmioRequest {
  type: 'ADD_MMIO' | 'DEL_MMIO'
  base: bigint
  size: bigint
  irq: number
}

/** A PCI function in domain 0. `devfn` is `slot << 3 | function`. */
export interface PciRequest {
  type: 'ADD_PCI' | 'DEL_PCI'
  bus: number
  devfn: number
}

/** Any message: `messageType` goes into the header, and `load`, at most 1008 bytes, follows it. Both are sent unchecked. */
export interface RawRequest {
  type: 'RAW'
  messageType: number
  load: Uint8Array
}

/** One request to the device manager. */
export type Request<A extends Arch = Arch> = CpuRequest<A> | MmioRequest | PciRequest | RawRequest

// x86_64: u8 count, u8 apic_ver, u8 apic_ids[256]. aarch64: u8 count.
const COUNT_AT = HEADER_SIZE
const APIC_VERSION_AT = HEADER_SIZE + 1
const APIC_IDS_AT = HEADER_SIZE + 2
const X86_CPU_SIZE = 258
const ARM_CPU_SIZE = 1
const MAX_CPUS = 255
// u64 mmio_base, u64 mmio_size, u32 mmio_irq, 4 bytes of padding
const MMIO_BASE_AT = HEADER_SIZE
const MMIO_SIZE_AT = HEADER_SIZE + 8
const MMIO_IRQ_AT = HEADER_SIZE + 16
const MMIO_SIZE = 24
// u8 busno, u8 devfn
const BUS_AT = HEADER_SIZE
const DEVFN_AT = HEADER_SIZE + 1
const PCI_SIZE = 2

/**
 * Writes a request as one message of 1024 bytes, zero-padded.
 *
 * A request that no guest can handle is refused here: 0 or more than 255 vCPUs, an APIC id that is out of range or named twice (a
 * duplicate crashes the guest's service thread), an empty window or a window that ends after 2^64, irq 0 on x86_64, a bus or devfn beyond a
 * byte, a load that does not fit. A RAW request bypasses these checks.
 *
 * @param into - Where to write, at least 1024 bytes, of which the first 1024 are written. Default: a new array.
 * @returns The message: `into` itself if it has exactly 1024 bytes, otherwise its first 1024.
 * @throws {@link WireError} `ARGUMENT` or, for `into`, `LENGTH`. `into` is not changed then.
 */
export function encodeRequest<A extends Arch>(request: Request<A>, arch: A, into?: Uint8Array): Uint8Array
export function encodeRequest(request: Request, arch: Arch, into?: Uint8Array): Uint8Array {
  checkArch(arch)
  checkRequest(request, arch)
  const load = request.type === 'RAW' ? loadApart(request.load, into) : undefined
  const bytes = blankMessage(into)
  switch (request.type) {
    case 'ADD_CPU':
    case 'DEL_CPU':
      if ('apicIds' in request) {
        putHeader(bytes, MessageType[request.type], X86_CPU_SIZE)
        bytes[COUNT_AT] = request.apicIds.length
        bytes[APIC_VERSION_AT] = request.apicVersion ?? DEFAULT_APIC_VERSION
        bytes.set(request.apicIds, APIC_IDS_AT)
      } else {
        putHeader(bytes, MessageType[request.type], ARM_CPU_SIZE)
        bytes[COUNT_AT] = request.count
      }
      return bytes
    case 'ADD_MMIO':
    case 'DEL_MMIO':
      putHeader(bytes, MessageType[request.type], MMIO_SIZE)
      putU64(bytes, MMIO_BASE_AT, request.base)
      putU64(bytes, MMIO_SIZE_AT, request.size)
      putU32(bytes, MMIO_IRQ_AT, request.irq)
      return bytes
    case 'ADD_PCI':
    case 'DEL_PCI':
      putHeader(bytes, MessageType[request.type], PCI_SIZE)
      bytes[BUS_AT] = request.bus
      bytes[DEVFN_AT] = request.devfn
      return bytes
    case 'RAW':
      putHeader(bytes, request.messageType, load!.length)
      bytes.set(load!, HEADER_SIZE)
      return bytes
  }
}

/**
 * Reads one request, on the guest's side. It is as lenient as the kernel: what the kernel does not check when it reads (an id named twice,
 * a count of 0, an empty window) is passed on, `msg_size` matters for MMIO only, and flags are ignored.
 *
 * @param bytes - Exactly one message, 1024 bytes.
 * @returns The request; `RAW` for a type that has no codec (3, 4 and above 8).
 * @throws {@link WireError} `LENGTH`, `MAGIC`, `TYPE` (CONNECT is not a request) or `SIZE` (MMIO, and a RAW load that is longer than the message).
 */
export function decodeRequest<A extends Arch>(bytes: Uint8Array, arch: A): Request<A>
export function decodeRequest(bytes: Uint8Array, arch: Arch): Request {
  checkArch(arch)
  const { messageType, size } = messageHeader(bytes)
  switch (messageType) {
    case MessageType.CONNECT:
      throw new WireError('TYPE', 'msg_type', 'CONNECT (0) is the greeting, not a request')
    case MessageType.ADD_CPU:
    case MessageType.DEL_CPU: {
      const type = messageType === MessageType.ADD_CPU ? 'ADD_CPU' : 'DEL_CPU'
      const count = bytes[COUNT_AT]!
      if (arch === 'aarch64') return { type, count }
      return { type, apicIds: Array.from(bytes.subarray(APIC_IDS_AT, APIC_IDS_AT + count)), apicVersion: bytes[APIC_VERSION_AT]! }
    }
    case MessageType.ADD_MMIO:
    case MessageType.DEL_MMIO: {
      if (size !== MMIO_SIZE)
        throw new WireError('SIZE', 'msg_size', `an MMIO request has a load of ${MMIO_SIZE} bytes, but this one declares ${size}`)
      const type = messageType === MessageType.ADD_MMIO ? 'ADD_MMIO' : 'DEL_MMIO'
      return { type, base: getU64(bytes, MMIO_BASE_AT), size: getU64(bytes, MMIO_SIZE_AT), irq: getU32(bytes, MMIO_IRQ_AT) }
    }
    case MessageType.ADD_PCI:
    case MessageType.DEL_PCI: {
      const type = messageType === MessageType.ADD_PCI ? 'ADD_PCI' : 'DEL_PCI'
      return { type, bus: bytes[BUS_AT]!, devfn: bytes[DEVFN_AT]! }
    }
    default:
      if (size > MAX_REQUEST_LOAD)
        throw new WireError('SIZE', 'msg_size', `a load has at most ${MAX_REQUEST_LOAD} bytes, but this one declares ${size}`)
      return { type: 'RAW', messageType, load: copyOf(bytes, HEADER_SIZE, HEADER_SIZE + size) }
  }
}

/** Everything that can be refused is refused before the first byte is written. */
function checkRequest(request: Request, arch: Arch): void {
  if (typeof request !== 'object' || request === null)
    throw new WireError('ARGUMENT', 'request', `must be an object, got ${show(request)}`)
  switch (request.type) {
    case 'ADD_CPU':
    case 'DEL_CPU':
      if (arch === 'x86_64') checkX86Cpus(request)
      else checkArmCpus(request)
      return
    case 'ADD_MMIO':
    case 'DEL_MMIO':
      checkWindow(request, arch)
      return
    case 'ADD_PCI':
    case 'DEL_PCI':
      integer(request.bus, 'bus', 0, 0xff)
      integer(request.devfn, 'devfn', 0, 0xff)
      return
    case 'RAW':
      integer(request.messageType, 'messageType', 0, 0xffff_ffff)
      load(request.load, 'load', MAX_REQUEST_LOAD)
      return
    default:
      throw new WireError(
        'ARGUMENT',
        'type',
        `must be ADD_CPU, DEL_CPU, ADD_MMIO, DEL_MMIO, ADD_PCI, DEL_PCI or RAW, got ${show((request as { type?: unknown }).type)}`,
      )
  }
}

function checkX86Cpus(request: CpuRequest): void {
  if (!('apicIds' in request) || 'count' in request)
    throw new WireError('ARGUMENT', 'apicIds', 'must be given, and count left out: x86_64 names vCPUs by APIC id')
  const { apicIds, apicVersion } = request
  if (!Array.isArray(apicIds)) throw new WireError('ARGUMENT', 'apicIds', `must be an array of APIC ids, got ${show(apicIds)}`)
  if (apicIds.length < 1 || apicIds.length > MAX_CPUS) {
    throw new WireError('ARGUMENT', 'apicIds', `must name 1 to ${MAX_CPUS} vCPUs, got ${apicIds.length}`)
  }
  // By id, 1 more than the index at which it was named first; 0 for an id that was not named.
  const named = new Uint8Array(0x100)
  // Not forEach: it skips the holes of a sparse array, which would be sent as id 0.
  for (const [i, id] of apicIds.entries()) {
    if (!isByte(id)) integer(id, `apicIds[${i}]`, 0, 0xff)
    const first = named[id]! - 1
    if (first >= 0) throw new WireError('ARGUMENT', `apicIds[${i}]`, `APIC id ${id} is already named at apicIds[${first}]`)
    named[id] = i + 1
  }
  if (apicVersion !== undefined) integer(apicVersion, 'apicVersion', 0, 0xff)
}

function isByte(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xff
}

function checkArmCpus(request: CpuRequest): void {
  if (!('count' in request) || 'apicIds' in request)
    throw new WireError('ARGUMENT', 'count', 'must be given, and apicIds left out: aarch64 takes a number of vCPUs')
  integer(request.count, 'count', 1, MAX_CPUS)
}

function checkWindow({ base, size, irq }: MmioRequest, arch: Arch): void {
  u64(base, 'base', 0n)
  u64(size, 'size', 1n)
  if (base + size > 1n << 64n) {
    throw new WireError(
      'ARGUMENT',
      'size',
      `a window of ${showInteger(size)} bytes at ${showInteger(base)} ends after 2^64, the most that fits is ${showInteger((1n << 64n) - base)}`,
    )
  }
  // On aarch64, 0 is the first shared peripheral interrupt.
  if (irq === 0 && arch === 'x86_64')
    throw new WireError(
      'ARGUMENT',
      'irq',
      'must be from 1 to 4294967295: an x86_64 kernel takes 0 for no interrupt and answers EINVAL',
    )
  integer(irq, 'irq', 0, 0xffff_ffff)
}
