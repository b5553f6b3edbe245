import { UpcallError } from '@upcall/client'
import { brandOf } from '@upcall/foundation/error'
import { messageTypeName, type Reply, type Request } from '@upcall/wire'
import { errnoName } from './errno.js'
import { describeRequest, formatOperation, type Operation } from './operation.js'

const brand = brandOf('device-manager.GuestError')

/** The guest refused. */
export class GuestError extends UpcallError {
  override readonly name = 'GuestError'
  /** The guest's result, as on the wire: negative errno, −1 for a command that its kernel does not have, or +1. */
  readonly errno: number
  /** `EINVAL` for −22; `+1` for +1. */
  readonly errnoName: string
  /** The request. */
  readonly operation: Operation
  /** The whole reply. */
  readonly reply: Reply

  /** @param remote - The name of the guest: `remote` of the client's options. */
  constructor(request: Request, reply: Reply, remote: string) {
    const name = errnoName(reply.result)
    const { why, next } = meaning(request, reply.result)
    super({
      code: 'GUEST_ERROR',
      outcome: 'guest-error',
      op: describeRequest(request),
      // The default name would only repeat what comes next.
      subject: remote === 'guest' ? '' : remote,
      what: `the guest refused: ${why} (${name})`,
      next,
    })
    this.errno = reply.result
    this.errnoName = name
    this.operation = formatOperation(request)
    this.reply = reply
    brand.mark(this)
  }
}

/** True for a {@link GuestError} of any copy of this package: `instanceof` fails between its ESM and its CJS build. */
export function isGuestError(value: unknown): value is GuestError {
  return brand.has(value)
}

/** The refusal that caused an error: the error itself, or what it came from. Undefined if the guest did not refuse. */
export function guestErrorOf(error: unknown): GuestError | undefined {
  const seen = new Set<unknown>()
  for (let each = error; each instanceof Error && !seen.has(each); each = each.cause) {
    if (isGuestError(each)) return each
    seen.add(each)
  }
  return undefined
}

interface Meaning {
  /** The reason, in plain English. */
  readonly why: string
  /** What the reader can do. */
  readonly next: string
}

/** What a result means for this request. Source: the guest kernel patches that Kata Containers ships. */
function meaning(request: Request, result: number): Meaning {
  const type = request.type === 'RAW' ? messageTypeName(request.messageType) : request.type
  if (result === 1) {
    const next = 'The step changed nothing. Compare what the VMM believes with what the guest has.'
    return { why: 'a CPU is in that state already', next }
  }
  if (result === -1) {
    return { why: 'its kernel does not have this command', next: 'Use a guest kernel that is built with this kind of hotplug.' }
  }
  const found =
    type === 'ADD_CPU' || type === 'DEL_CPU'
      ? ofCpus(type, request, result)
      : type === 'ADD_MMIO' || type === 'DEL_MMIO'
        ? ofMmio(type, result)
        : ofPci(type, result)
  return found ?? { why: KNOWN.get(result) ?? 'the operation failed', next: LOOK }
}

const LOOK = "Look at the guest's kernel log."

const KNOWN = new Map([
  [-5, 'an input or output error'],
  [-12, 'it is out of memory'],
  [-16, 'the device or resource is busy'],
  [-17, 'it exists already'],
  [-19, 'no such device'],
  [-22, 'an invalid argument'],
])

function ofCpus(type: 'ADD_CPU' | 'DEL_CPU', request: Request, result: number): Meaning | undefined {
  const adding = type === 'ADD_CPU'
  const counted = 'count' in request
  const single = 'apicIds' in request && request.apicIds.length === 1
  if (result === -5 && adding) return { why: 'a CPU does not come online', next: 'Start its vCPU before the add.' }
  if (result === -17) {
    const next = 'After a hole in the ids, a 5.10 or 6.1 guest says so of CPUs that run. Fill the hole first.'
    return { why: 'the CPU is registered already', next }
  }
  if (result !== -22) return undefined
  // An x86_64 guest reads the zeros after the count as APIC ids: id 0, which is in use and has to stay (docs/protocol.md, fact 11).
  const arch = 'Check the architecture too: an x86_64 guest reads a count as APIC ids.'
  if (adding) {
    if (counted) return { why: 'a CPU cannot be brought online', next: `Start the vCPUs before the add. ${arch}` }
    if (single) return { why: 'the id is in use or has no vCPU', next: 'Start the vCPU of a free id before the add.' }
    return { why: 'an id is in use or has no vCPU', next: 'Earlier ids of the batch may be online. Look at the guest.' }
  }
  const why = 'the boot CPU and the last CPU cannot be removed'
  if (counted) return { why, next: arch }
  return { why, next: single ? LOOK : 'Earlier ids of the batch may be gone. Look at the guest.' }
}

function ofMmio(type: 'ADD_MMIO' | 'DEL_MMIO', result: number): Meaning | undefined {
  if (result === -17) return { why: 'the window or the irq is in use', next: 'Choose a free window and a free irq.' }
  if (result === -19 && type === 'DEL_MMIO') {
    return { why: 'no such window', next: 'Remove a window with the base, size and irq of its add.' }
  }
  if (result === -22) return { why: 'an invalid argument', next: 'Check base, size and irq.' }
  return undefined
}

function ofPci(type: string | undefined, result: number): Meaning | undefined {
  if (result !== -19) return undefined
  if (type === 'ADD_PCI') return { why: 'no such device', next: 'Plug the device in before the add.' }
  if (type === 'DEL_PCI') return { why: 'no such device', next: 'Check the address with "lspci" in the guest.' }
  return undefined
}
