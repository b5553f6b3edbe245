// Integers in the guest's byte order, which is little-endian on both architectures. They are written byte by byte and not through a
// DataView: the caller's buffer is used as it is, and nothing is allocated.

/** An i32 has the same bytes in two's complement. */
export function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value >>> 16
  bytes[at + 3] = value >>> 24
}

export function getU32(bytes: Uint8Array, at: number): number {
  return getI32(bytes, at) >>> 0
}

export function getI32(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
}

export function putU64(bytes: Uint8Array, at: number, value: bigint): void {
  putU32(bytes, at, Number(value & 0xffff_ffffn))
  putU32(bytes, at + 4, Number(value >> 32n))
}

export function getU64(bytes: Uint8Array, at: number): bigint {
  return BigInt(getU32(bytes, at)) | (BigInt(getU32(bytes, at + 4)) << 32n)
}

/** A real copy: `slice` of a Buffer is a view of the caller's memory. */
export function copyOf(bytes: Uint8Array, from: number, to: number): Uint8Array {
  return new Uint8Array(bytes.subarray(from, to))
}
