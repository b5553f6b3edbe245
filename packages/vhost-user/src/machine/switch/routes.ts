import type { PacketHeader } from '../packet.js'
import type { PolicyRefusal } from '../policy.js'

/**
 * Why a guest may not connect. `unknown-cid`: no guest of the switch has it. `group`: the two share no group. `not-running`: there is no
 * driver in the other guest. `full`: the guest has begun as many connections as it may have. `busy`: the other guest has yet to hear that the
 * last connection with these ports has ended. `policy-port`, `policy-connections`, `policy-rate`: the policy of one of the two.
 * Anything else: what `admit` said.
 */
export type RefusalReason = 'unknown-cid' | 'group' | 'not-running' | 'full' | 'busy' | PolicyRefusal | (string & {})

/** What a port asks of its switch. */
export interface Routes<Port> {
  /** Undefined: no guest of the switch has this CID. */
  get(cid: number): unknown
  /** The port that a REQUEST goes to, or why it goes nowhere. */
  route(request: Readonly<PacketHeader>, now: number): Port | RefusalReason
  /** Tells of a refusal. */
  refused(request: Readonly<PacketHeader>, reason: RefusalReason): void
}
