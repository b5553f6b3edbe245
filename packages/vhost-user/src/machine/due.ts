import { Op } from './packet.js'

/** What a connection may have to say, most urgent first. */
const ORDER: readonly number[] = [Op.RST, Op.REQUEST, Op.RESPONSE, Op.RW, Op.CREDIT_REQUEST, Op.SHUTDOWN, Op.CREDIT_UPDATE]

/** One bit for each operation, the lowest for the most urgent. */
const BITS: readonly number[] = Array.from({ length: 8 }, (_, op) => (ORDER.includes(op) ? 1 << ORDER.indexOf(op) : 0))

/** Operations as a bit mask. */
export type Operations = number
export const operations = (...ops: readonly number[]): Operations => ops.reduce((all, op) => all | BITS[op]!, 0)

/** What begins and ends a connection. It goes in every state, before everything else. */
export const HANDSHAKE = operations(Op.RST, Op.REQUEST, Op.RESPONSE)
/** What else goes while no bytes wait. */
export const WITHOUT_BYTES = HANDSHAKE | operations(Op.SHUTDOWN, Op.CREDIT_UPDATE)
/** While bytes wait there is no SHUTDOWN, and the guest's credit decides. Each packet tells of our credit, so CREDIT_UPDATE comes last. */
export const WITH_CREDIT = HANDSHAKE | operations(Op.RW)
export const ASKING_FOR_CREDIT = HANDSHAKE | operations(Op.CREDIT_REQUEST)
export const WAITING_FOR_CREDIT = HANDSHAKE | operations(Op.CREDIT_UPDATE)

/** What is due on a connection: a set of operations, ordered by urgency. However often something falls due, it is said once. */
export class DueSet {
  #bits: Operations = 0

  add(op: number): void {
    this.#bits |= BITS[op]!
  }

  delete(op: number): void {
    this.#bits &= ~BITS[op]!
  }

  clear(): void {
    this.#bits = 0
  }

  /** The most urgent of `allowed`; INVALID if none of them is due. */
  first(allowed: Operations): number {
    const bits = this.#bits & allowed
    return bits === 0 ? Op.INVALID : ORDER[31 - Math.clz32(bits & -bits)]!
  }
}
