import { integer } from '@upcall/foundation/check'
import type { Binding, Descriptor } from './binding.js'
import { AF_VSOCK, LITTLE_ENDIAN } from './sockaddr.js'

/** Socket options of AF_VSOCK, for `vsock://` addresses; other transports ignore them. */
export interface VsockOptions {
  /** Receive buffer in bytes, 1 to 4294967295, which is the credit granted to the peer. Default 262144, the kernel's. */
  bufferSize?: number | undefined
  /** Lower bound of `bufferSize`, in bytes. Default 128, the kernel's; lowered if `bufferSize` is less. */
  bufferMinSize?: number | undefined
  /** Upper bound of `bufferSize`, in bytes. Default 262144, the kernel's; raised if `bufferSize` is more. */
  bufferMaxSize?: number | undefined
}

export interface VsockConnectOptions extends VsockOptions {
  /**
   * Hands the connection to the host whatever the CID is (VMADDR_FLAG_TO_HOST), so that it can reach a sibling VM. For guests;
   * needs Linux 5.11 and a host that forwards. Default false.
   */
  toHost?: boolean | undefined
}

// linux/vm_sockets.h
const SO_VM_SOCKETS_BUFFER_SIZE = 0
const SO_VM_SOCKETS_BUFFER_MIN_SIZE = 1
const SO_VM_SOCKETS_BUFFER_MAX_SIZE = 2
const SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD = 6
const SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW = 8

/** Credit is a u32 on the wire, and the kernel would cut a larger buffer to it without a word. */
const MAX_CREDIT = 0xffff_ffff
/** 24 days. */
const LONGEST_TIMEOUT_MS = 0x7fff_ffff
const DEFAULT_MIN_SIZE = 128
const DEFAULT_MAX_SIZE = 262_144

/** Kernels before 5.1 know only the old timeout option, whose `long`s are the same 64 bits on 64-bit machines. */
const LONGS_OF_64_BITS: ReadonlySet<string> = new Set(['x64', 'arm64', 'ppc64', 's390x', 'riscv64', 'loong64'])

/** @throws {RangeError} for a size that is out of range, and for sizes that contradict each other. */
export function checkVsockOptions({ bufferSize, bufferMinSize, bufferMaxSize }: VsockOptions): void {
  for (const [name, value] of Object.entries({ bufferSize, bufferMinSize, bufferMaxSize })) {
    if (value !== undefined) integer(`vsock.${name}`, value, { min: 1, max: MAX_CREDIT })
  }
  const ordered = [bufferMinSize ?? 0, bufferSize, bufferMaxSize ?? MAX_CREDIT].filter((size) => size !== undefined)
  if (ordered.some((size, i) => i > 0 && size < ordered[i - 1]!)) {
    throw new RangeError(
      `vsock: must have bufferMinSize <= bufferSize <= bufferMaxSize, got ${bufferMinSize}, ${bufferSize}, ${bufferMaxSize}`,
    )
  }
}

/** Sets the buffer sizes. The bounds come first, and follow the size: the kernel would silently cut it to them. */
export function setBufferSizes(binding: Binding, descriptor: Descriptor, options: VsockOptions): void {
  const { bufferSize } = options
  const max = options.bufferMaxSize ?? (bufferSize !== undefined && bufferSize > DEFAULT_MAX_SIZE ? bufferSize : undefined)
  const min = options.bufferMinSize ?? (bufferSize !== undefined && bufferSize < DEFAULT_MIN_SIZE ? bufferSize : undefined)
  const set = (option: number, size: number | undefined) => {
    if (size !== undefined) binding.setsockopt(descriptor, AF_VSOCK, option, encodeU64(size))
  }
  set(SO_VM_SOCKETS_BUFFER_MAX_SIZE, max)
  set(SO_VM_SOCKETS_BUFFER_MIN_SIZE, min)
  set(SO_VM_SOCKETS_BUFFER_SIZE, bufferSize)
}

/** Sets how long the kernel waits for an answer to connect; its own default is 2 s. */
export function setConnectTimeout(
  binding: Binding,
  descriptor: Descriptor,
  timeoutMs: number,
  arch: string = process.arch,
): void {
  // The kernel refuses a time that it cannot count in ticks, and Infinity has no encoding.
  const timeval = encodeTimeval(Math.min(timeoutMs, LONGEST_TIMEOUT_MS))
  try {
    binding.setsockopt(descriptor, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, timeval)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOPROTOOPT') throw error
    // Without either, the kernel gives up after its 2 s.
    if (LONGS_OF_64_BITS.has(arch)) binding.setsockopt(descriptor, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD, timeval)
  }
}

function encodeU64(value: number, littleEndian = LITTLE_ENDIAN): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), littleEndian)
  return bytes
}

/** `struct __kernel_sock_timeval`: s64 seconds, s64 microseconds. Rounded up to whole microseconds. */
function encodeTimeval(ms: number, littleEndian = LITTLE_ENDIAN): Uint8Array {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  const microseconds = Math.ceil(ms * 1_000)
  view.setBigInt64(0, BigInt(Math.floor(microseconds / 1_000_000)), littleEndian)
  view.setBigInt64(8, BigInt(microseconds % 1_000_000), littleEndian)
  return bytes
}
