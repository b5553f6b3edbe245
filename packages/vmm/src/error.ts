/**
 * - `INVALID`: this machine cannot do what was asked. `NOT_FOUND`: nothing has that id.
 * - `CONFLICT`: the id or the address is taken, or it is unknown whether the guest has it.
 * - `BUSY`: another change is under way. `NOT_READY`: the guest cannot be asked now. `EXHAUSTED`: no window, line or slot is free.
 * - `UNFINISHED`: the guest has been asked and is not through; it may be later.
 */
export type VmErrorCode = 'INVALID' | 'NOT_FOUND' | 'CONFLICT' | 'BUSY' | 'NOT_READY' | 'EXHAUSTED' | 'UNFINISHED'

/** The VMM's own refusal; but for `UNFINISHED`, nothing was sent to the guest. Messages read `<subject>: <what>; <next step>`. */
export class VmError extends Error {
  override readonly name = 'VmError'
  readonly code: VmErrorCode

  constructor(code: VmErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}
