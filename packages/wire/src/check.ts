import { show, showInteger } from '@upcall/foundation/show'
import type { Arch } from './constants.js'
import { WireError } from './error.js'

/** @throws WireError that says where, and what is allowed. */
export function integer(value: unknown, path: string, min: number, max: number): number {
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw new WireError('ARGUMENT', path, `must be an integer from ${min} to ${max}, got ${show(value)}`)
  }
  return value as number
}

/** @throws WireError that says where, and what is allowed, in words that fit a shell and a program. */
export function u64(value: unknown, path: string, min: bigint): bigint {
  if (typeof value !== 'bigint')
    throw new WireError('ARGUMENT', path, `must be a bigint from ${min} to 2^64 − 1, got ${show(value)}`)
  if (value < min || value >= 1n << 64n)
    throw new WireError('ARGUMENT', path, `must be from ${min} to 2^64 − 1, got ${showInteger(value)}`)
  return value
}

/** A load of at most `max` bytes. @throws WireError */
export function load(value: unknown, path: string, max: number): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length > max) {
    throw new WireError('ARGUMENT', path, `must be a Uint8Array of at most ${max} bytes, got ${show(value)}`)
  }
  return value
}

export function checkArch(arch: unknown): asserts arch is Arch {
  if (arch !== 'x86_64' && arch !== 'aarch64')
    throw new WireError('ARGUMENT', 'arch', `must be 'x86_64' or 'aarch64', got ${show(arch)}`)
}
