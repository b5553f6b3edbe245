import type { CpuRequest } from '@upcall/wire'
import type { CpuAnswer, MaybePromise } from '../backend.js'

/** The guest's CPUs under the rules of one architecture. One call at a time. Throws `Oops` where the kernel's thread crashes. */
export interface Cpus {
  add(request: CpuRequest, wait: Wait): MaybePromise<CpuAnswer>
  remove(request: CpuRequest): CpuAnswer
  /** The ids of the CPUs that run, ascending: APIC ids on x86_64, CPU numbers on aarch64. */
  online(): number[]
  /** The ids of the CPUs that the kernel believes to be plugged in, ascending. A CPU that is online but not present is corrupted. */
  present(): number[]
  /** As through /sys/devices/system/cpu/cpu<n>/online. False if there is no such CPU, or if it is the boot CPU. */
  setOnline(id: number, online: boolean): boolean
}

/** Resolves `ms` from now; never rejects. */
export type Wait = (ms: number) => Promise<void>

export const ascending = (ids: Iterable<number>): number[] => [...ids].sort((a, b) => a - b)
