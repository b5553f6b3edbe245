import { isUpcallError, UpcallError } from '@upcall/client'
import { messageTypeName, type Reply, type Request } from '@upcall/wire'
import { errnoName } from './errno.js'
import { describeRequest, formatOperation, type Operation } from './operation.js'

/** The guest refused. */
export class GuestError extends UpcallError {
  override readonly name = 'GuestError'
  /** The guest's result, as on the wire: negative errno, −1 for a command that its kernel does not have, or +1. */
  readonly errno: number
  /** `EINVAL` for −22; `+1` for +1. */
  readonly errnoName: string
  /** What was asked. */
  readonly operation: Operation
  /** The whole reply. */
  readonly reply: Reply

  constructor(request: Request, reply: Reply, remote: string) {
    const name = errnoName(reply.result)
    const what = `refused with ${reply.result > 0 ? name : `${name} (${reply.result})`}`
    const [op, next] = [describeRequest(request), advice(request, reply.result)]
    super({ code: 'GUEST_ERROR', outcome: 'guest-error', op, subject: remote, what, next })
    this.errno = reply.result
    this.errnoName = name
    this.operation = formatOperation(request)
    this.reply = reply
  }
}

/** True for a {@link GuestError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isGuestError(value: unknown): value is GuestError {
  return isUpcallError(value) && value.code === 'GUEST_ERROR'
}

/** What a result means for this request, and what to look at. Meanings: the guest kernel patches that Kata Containers ships. */
function advice(request: Request, result: number): string {
  const type = request.type === 'RAW' ? messageTypeName(request.messageType) : request.type
  const cpu = type === 'ADD_CPU' || type === 'DEL_CPU'
  const mmio = type === 'ADD_MMIO' || type === 'DEL_MMIO'
  const pci = type === 'ADD_PCI' || type === 'DEL_PCI'
  if (result === 1)
    return 'A CPU was in that state already, and the step changed nothing. Compare what you believe with what the guest has.'
  if (result === -1) return "The guest's kernel has no such command. Was it built with this hotplug support?"
  if (result === -17 && cpu)
    return 'The guest counts that CPU as registered. After a hole in the ids, a 5.10 or 6.1 guest says so of running CPUs.'
  if (result === -17 && mmio) return 'The window or the irq overlaps one that the guest already has. Choose a free one.'
  if (result === -19 && type === 'DEL_MMIO') return 'No window has exactly this base, size and irq. Remove it as it was added.'
  if (result === -19 && type === 'ADD_PCI')
    return 'The guest finds nothing on that bus and slot. Plug the device in before ADD_PCI.'
  if (result === -19 && pci) return 'The guest knows nothing on that bus and slot. It may be gone already.'
  if (result === -5 && type === 'ADD_CPU') return 'A CPU did not come up. Start its vCPU before ADD_CPU.'
  // An x86_64 guest reads the zeros after the count as APIC ids: id 0, which is in use and has to stay (protocol, fact 11).
  if (result === -22 && cpu && 'count' in request) {
    const refused = type === 'ADD_CPU' ? 'A vCPU cannot be brought up' : 'The boot CPU stays, and so does the last one'
    return `${refused}, or the guest is x86_64 and takes the count for ids.`
  }
  if (result === -22 && type === 'ADD_CPU')
    return 'An id is in use, or no vCPU answers for it. Ids of a batch before it may be online.'
  if (result === -22 && type === 'DEL_CPU')
    return 'The boot CPU stays, and so does the last one. Ids of a batch before it may be gone.'
  if (result === -22 && mmio) return 'The guest calls the request invalid. Check base, size and irq.'
  return "See the guest's kernel log."
}
