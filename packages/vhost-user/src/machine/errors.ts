/**
 * Why a device stopped.
 *
 * - `PROTOCOL`: the front end (the VMM) broke the vhost-user protocol, or asked for what was never offered.
 * - `MEMORY_TABLE`: a memory table with overlapping, empty or unreachable regions.
 * - `RING_SIZE`, `RING_ALIGNMENT`, `RING_ADDRESS`: a ring that cannot be used as described.
 * - `AVAIL_INDEX`: the guest made more chains available than its ring can hold.
 * - `DESCRIPTOR_INDEX`: a descriptor number outside the table.
 * - `DESCRIPTOR_LOOP`: a chain longer than any honest one.
 * - `DESCRIPTOR_ORDER`: a readable descriptor behind a writable one, or one of the wrong direction for its queue.
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
export class DeviceError extends Error {
  override readonly name = 'DeviceError'
  readonly code: DeviceErrorCode

  constructor(code: DeviceErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

/** Any thrown value as a DeviceError: the boundary of the machine lets nothing else out. */
export function toDeviceError(error: unknown): DeviceError {
  if (error instanceof DeviceError) return error
  const what = error instanceof Error ? error.message : String(error)
  return new DeviceError('INTERNAL', `vhost-user device: unexpected failure: ${what}`, { cause: error })
}

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`
