// Which CPU requests may be sent at all, and in which order their ids go out. A wrong one does not fail: it crashes the guest's service
// thread, on 5.10 and 6.1 with the device-hotplug lock held, or corrupts a CPU that runs (protocol, facts 7 and 8).

import { type ArmCpuRequest, type CpuRequest, WireError, type X86CpuRequest } from '@upcall/wire'
import { show } from './check.js'

/** The highest APIC id of a vCPU; 255 addresses all of them. */
export const MAX_APIC_ID = 254

/** The vCPUs that are there now: ids on x86_64, a count on aarch64. */
export type Present = readonly number[] | number

/**
 * The request as it may be sent: ids ascending for ADD_CPU, descending for DEL_CPU.
 *
 * @param present - If given, ids that this makes wrong are refused too.
 * @throws WireError that names the id.
 */
export function orderCpus(request: CpuRequest, present?: Present): CpuRequest {
  return 'apicIds' in request ? orderX86(request, present) : checkArm(request, present)
}

function orderX86(request: X86CpuRequest, present: Present | undefined): X86CpuRequest {
  const { type, apicIds } = request
  // The codec says what is wrong with them.
  if (!Array.isArray(apicIds) || apicIds.some((id) => typeof id !== 'number')) return request
  const there = idsOf(present)
  apicIds.forEach((id, i) => {
    const path = `apicIds[${i}]`
    if (id > MAX_APIC_ID) throw argument(path, `a vCPU's id is at most ${MAX_APIC_ID}, got ${id}`)
    if (type === 'DEL_CPU') checkRemoval(id, path, there)
    else if (there?.has(id))
      throw argument(path, `CPU ${id} is present already; adding it again would spoil its bookkeeping in the guest`)
  })
  return { ...request, apicIds: [...apicIds].sort(type === 'ADD_CPU' ? (a, b) => a - b : (a, b) => b - a) }
}

function idsOf(present: Present | undefined): ReadonlySet<number> | undefined {
  if (present === undefined) return undefined
  if (!Array.isArray(present)) throw argument('present', `on x86_64 this is the array of the vCPUs' ids, got ${show(present)}`)
  const ids = new Set<number>()
  for (const [i, id] of present.entries()) {
    if (!Number.isInteger(id) || id < 0) throw argument(`present[${i}]`, `must be a vCPU's id, got ${show(id)}`)
    ids.add(id)
  }
  return ids
}

function checkRemoval(id: number, path: string, there: ReadonlySet<number> | undefined): void {
  if (id === 0) throw argument(path, 'CPU 0 is the boot CPU and cannot be removed')
  if (there === undefined) return
  if (!there.has(id)) throw argument(path, `CPU ${id} is not present; removing it would crash the guest's service thread`)
  // 5.10 and 6.1 look only at as many CPUs as there are, from the bottom: after a hole the top ones are as good as absent.
  if (id >= there.size) {
    throw argument(
      path,
      `CPU ${id} lies beyond a hole in the ids present, where a 5.10 or 6.1 guest does not find it and crashes; fill the hole first`,
    )
  }
}

function checkArm(request: ArmCpuRequest, present: Present | undefined): ArmCpuRequest {
  if (present === undefined) return request
  if (!Number.isInteger(present) || (present as number) < 1)
    throw argument('present', `on aarch64 this is a count of vCPUs, at least 1, got ${show(present)}`)
  if (request.type === 'DEL_CPU' && request.count >= (present as number)) {
    throw argument('count', `${request.count} of ${present} vCPUs cannot be removed: one has to stay`)
  }
  return request
}

function argument(path: string, what: string): WireError {
  return new WireError('ARGUMENT', path, what)
}
