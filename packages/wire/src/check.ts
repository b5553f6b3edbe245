import type { Arch } from './constants.js'
import { show, showInteger, WireError } from './error.js'

/** An integer in min … max, or a WireError that says where and what is allowed. */
export function integer(value: unknown, path: string, min: number, max: number): number {
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw new WireError('ARGUMENT', path, `must be an integer in ${min} … ${max}, got ${show(value)}`)
  }
  return value as number
}

/** A bigint in min … 2^64 − 1, or a WireError that says where and what is allowed, in words that fit a shell as well as a program. */
export function u64(value: unknown, path: string, min: bigint): bigint {
  if (typeof value !== 'bigint')
    throw new WireError('ARGUMENT', path, `must be a bigint in ${min} … 2^64 − 1, got ${show(value)}`)
  if (value < min || value >= 1n << 64n)
    throw new WireError('ARGUMENT', path, `must be in ${min} … 2^64 − 1, got ${showInteger(value)}`)
  return value
}

/** A load of at most `max` bytes. */
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
