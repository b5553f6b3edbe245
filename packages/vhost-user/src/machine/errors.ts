import { type ErrorFields, FieldError, textOf } from '@upcall/foundation/error'

/**
 * Why a device stopped.
 *
 * - `PROTOCOL`: the front end (the VMM) broke the vhost-user protocol, or asked for what was never offered.
 * - `MEMORY_TABLE`: a memory table with overlapping, empty or unreachable regions.
 * - `RING_SIZE`, `RING_ALIGNMENT`, `RING_ADDRESS`: a ring that cannot be used as described.
 * - `AVAIL_INDEX`: the guest made more chains available than its ring can hold.
 * - `DESCRIPTOR_INDEX`: a descriptor number outside the table.
 * - `DESCRIPTOR_LOOP`: a chain longer than any honest one.
 * - `DESCRIPTOR_ORDER`: a readable descriptor after a writable one, or a descriptor of the wrong direction for its queue.
 * - `INDIRECT`: an indirect table that is nested, chained, empty, misaligned in length, or was never negotiated.
 * - `OUT_OF_BOUNDS`: an address range that does not lie inside guest memory.
 * - `CHAIN_TOO_SHORT`: a chain without room for a packet, or a packet that claims more bytes than its chain holds.
 * - `INTERNAL`: none of the above; a defect in this package. `cause` holds the original error.
 */
export type DeviceErrorCode =
  | 'PROTOCOL'
  | 'MEMORY_TABLE'
  | 'RING_SIZE'
  | 'RING_ALIGNMENT'
  | 'RING_ADDRESS'
  | 'AVAIL_INDEX'
  | 'DESCRIPTOR_INDEX'
  | 'DESCRIPTOR_LOOP'
  | 'DESCRIPTOR_ORDER'
  | 'INDIRECT'
  | 'OUT_OF_BOUNDS'
  | 'CHAIN_TOO_SHORT'
  | 'INTERNAL'

/** A guest or a front end did something that ends the device. The process and every other device carry on. */
export class DeviceError extends FieldError<DeviceErrorCode> {
  override readonly name = 'DeviceError'

  constructor(fields: ErrorFields<DeviceErrorCode>) {
    super({ ...fields, next: fields.next ?? nextFor(fields.code) })
  }
}

function nextFor(code: DeviceErrorCode): string {
  switch (code) {
    case 'PROTOCOL':
    case 'MEMORY_TABLE':
      return 'Check the version and the command line of the VMM.'
    case 'INTERNAL':
      return 'This is a defect of @upcall/vhost-user: please report it with its cause.'
    default:
      return "Check the guest's virtio-vsock driver, and reset the guest or call restart()."
  }
}

/** The guest broke a rule of its rings. */
export const guestError = (code: DeviceErrorCode, subject: string, what: string): DeviceError =>
  new DeviceError({ code, subject, what })

/** The front end broke the protocol. @param subject the request, or what else it is about. */
export const protocolError = (subject: string, what: string, cause?: unknown): DeviceError =>
  new DeviceError({ code: 'PROTOCOL', op: 'vhost-user', subject, what, cause })

/** Any thrown value as a DeviceError: the boundary of the machine lets nothing else out. */
export function toDeviceError(error: unknown): DeviceError {
  if (error instanceof DeviceError) return error
  const what = `an unexpected failure: ${textOf(error)}`
  return new DeviceError({ code: 'INTERNAL', op: 'vhost-user', subject: 'device', what, cause: error })
}

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`
