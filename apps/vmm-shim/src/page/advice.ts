// What a person at the page can do about a failure. The libraries' errors advise a programmer, and name calls that a page does not have.

import { isUpcallError } from '@upcall/client'
import { type GuestError, guestErrorOf } from '@upcall/device-manager'
import { fieldsOf, textOf } from '@upcall/foundation/error'
import { isVmError } from '@upcall/vmm'
import { faultOf, HttpError } from '../api/fault.js'
import type { OutcomeView } from './events.js'

export type FaultView = NonNullable<OutcomeView['fault']>

/** A failure in words, with what to do now. */
export function adviceFor(error: unknown): FaultView {
  const { body } = faultOf(error)
  const refusal = refusalIn(error)
  const fields = fieldsOf(error)
  const reconcile = settlesByReconcile(error, body.outcome)
  const next = nextOf(error, refusal, reconcile)
  return {
    ...body,
    ...(refusal && { errnoName: refusal.errnoName }),
    // What is wrong with a request is said of a part of it, which its subject names.
    what: fields === undefined ? textOf(error) : error instanceof HttpError ? `${fields.subject}: ${fields.what}` : fields.what,
    ...(next !== undefined && { next }),
    reconcile,
  }
}

function refusalIn(error: unknown): GuestError | undefined {
  const failed = isVmError(error) ? [error, ...error.errors] : [error]
  return failed.map(guestErrorOf).find((each) => each !== undefined)
}

/** A reconcile asks the guest what it has. It also boots a dead guest again. */
function settlesByReconcile(error: unknown, outcome: FaultView['outcome']): boolean {
  if (outcome === 'indeterminate') return true
  if (guestErrorOf(error)?.errno === 1) return true
  if (!isVmError(error)) return isUpcallError(error) && (error.code === 'UNREACHABLE' || error.code === 'DISCONNECTED')
  // An id that waits to be settled, or a guest that is dead or cannot be reached.
  return (error.code === 'CONFLICT' || error.code === 'NOT_READY') && /reconcile/i.test(error.next ?? '')
}

const RECONCILE =
  'Nobody knows whether the guest did it. Press "Reconcile": it asks the guest what it has, and settles the difference.'

function nextOf(error: unknown, refusal: GuestError | undefined, reconcile: boolean): string | undefined {
  if (refusal !== undefined && refusal.errno !== 1) return nextOfRefusal(refusal)
  if (refusal !== undefined) return 'The guest has another idea of this CPU than vmm-shim. Press "Reconcile" to settle it.'
  if (isUpcallError(error) && error.outcome === 'indeterminate') return RECONCILE
  if (isVmError(error)) {
    switch (error.code) {
      case 'BUSY':
        return 'One change at a time: wait until that one has ended, then ask again.'
      case 'UNFINISHED':
        return 'The guest goes on with it. Look again in a moment, then press "Reconcile" if the sizes still differ.'
      case 'NOT_READY':
        return error.next ?? 'Wait until the session is Ready, then ask again.'
      case 'INCOMPLETE':
        return error.next ?? (reconcile ? RECONCILE : undefined)
      default:
        return error.next
    }
  }
  return fieldsOf(error)?.next
}

/** Why a guest refuses: docs/errors.md has the same as a table. */
function nextOfRefusal({ operation, errno, next }: GuestError): string | undefined {
  const { op } = operation
  if (errno === -1)
    return 'The guest kernel was built without this kind of hotplug. Boot a kernel that has it; nothing was changed here.'
  if (errno === -12) return 'The guest needs free memory for it. Free some in the guest or give it more, then ask again.'
  if (errno === -16) return 'Something in the guest uses it. Stop or unmount that in the guest, then ask again.'
  switch (op) {
    case 'mmio.add':
      if (errno === -17) return 'The guest uses this window or this irq already. Ask again: another window is chosen then.'
      break
    case 'mmio.remove':
      if (errno === -19)
        return 'The guest has no such window: something in the guest has removed it, or never took it. Press "Reconcile".'
      break
    case 'pci.add':
      if (errno === -19)
        return 'The guest scanned that slot and found nothing. Look whether the device is plugged in, or choose another address.'
      break
    case 'pci.remove':
      if (errno === -19)
        return 'The guest has no device at that address: something in it has removed the device. Press "Reconcile".'
      break
    case 'cpu.add':
      if (errno === -22)
        return 'The guest does not take this CPU: its id is in use, or the guest booted with a lower limit of CPUs (maxcpus=).'
      if (errno === -5) return 'The CPU does not come online. Look at the console for what the guest kernel says.'
      break
    case 'cpu.remove':
      if (errno === -22) return 'The guest keeps its boot CPU and its last CPU. Ask for one CPU at least.'
      break
  }
  return next === undefined ? 'Look at the console for what the guest kernel says.' : next
}
