// Which CPU requests may be sent, and in which order of ids. A wrong request does not fail: it crashes the guest's service thread, on 5.10
// and 6.1 with the device-hotplug lock held, or it corrupts a CPU that runs (docs/protocol.md, facts 7 and 8).

import { show } from '@upcall/foundation/show'
import { type ArmCpuRequest, type CpuRequest, WireError, type X86CpuRequest } from '@upcall/wire'

/** The highest APIC id of a vCPU. Id 255 is the broadcast address. */
export const MAX_APIC_ID = 254

/** The vCPUs that are present now: ids on x86_64, a count on aarch64. */
export type Present = readonly number[] | number

/**
 * The request as it may be sent: ids ascending for ADD_CPU, descending for DEL_CPU.
 *
 * @param present - If given, ids that are wrong for these vCPUs are refused too.
 * @throws WireError that names the id.
 */
export function orderCpus(request: CpuRequest, present?: Present): CpuRequest {
  return 'apicIds' in request ? orderX86(request, present) : checkArm(request, present)
}

function orderX86(request: X86CpuRequest, present: Present | undefined): X86CpuRequest {
  const { type, apicIds } = request
  // The codec's error says what is wrong with them.
  if (!Array.isArray(apicIds) || apicIds.some((id) => typeof id !== 'number')) return request
  const there = idsOf(present)
  apicIds.forEach((id, i) => {
    const path = `apicIds[${i}]`
    if (id > MAX_APIC_ID) throw argument(path, `must be at most ${MAX_APIC_ID}, got ${id}`)
    if (type === 'DEL_CPU') checkRemoval(id, path, there)
    else if (there?.has(id)) throw argument(path, `CPU ${id} is present already; a second add would corrupt it in the guest`)
  })
  return { ...request, apicIds: [...apicIds].sort(type === 'ADD_CPU' ? (a, b) => a - b : (a, b) => b - a) }
}

function idsOf(present: Present | undefined): ReadonlySet<number> | undefined {
  if (present === undefined) return undefined
  if (!Array.isArray(present)) throw argument('present', `must be the array of the vCPUs' ids on x86_64, got ${show(present)}`)
  const ids = new Set<number>()
  for (const [i, id] of present.entries()) {
    if (!Number.isInteger(id) || id < 0) throw argument(`present[${i}]`, `must be a vCPU's id, got ${show(id)}`)
    ids.add(id)
  }
  return ids
}

function checkRemoval(id: number, path: string, there: ReadonlySet<number> | undefined): void {
  if (id === 0) throw argument(path, 'must not be CPU 0: the boot CPU cannot be removed')
  if (there === undefined) return
  if (!there.has(id)) throw argument(path, `CPU ${id} is not present; its removal would crash the guest's service thread`)
  // 5.10 and 6.1 search only as many CPUs as there are, from the bottom: after a hole they do not find the top ones.
  if (id >= there.size) {
    throw argument(
      path,
      `CPU ${id} is above a hole in the present ids, where a 5.10 or 6.1 guest does not find it and crashes; fill the hole first`,
    )
  }
}

function checkArm(request: ArmCpuRequest, present: Present | undefined): ArmCpuRequest {
  if (present === undefined) return request
  if (!Number.isInteger(present) || (present as number) < 1)
    throw argument('present', `must be a number of vCPUs of at least 1 on aarch64, got ${show(present)}`)
  if (request.type === 'DEL_CPU' && request.count >= (present as number)) {
    throw argument('count', `must be less than ${present}, the number of vCPUs, got ${request.count}: one vCPU has to stay`)
  }
  return request
}

function argument(path: string, what: string): WireError {
  return new WireError('ARGUMENT', path, what)
}
