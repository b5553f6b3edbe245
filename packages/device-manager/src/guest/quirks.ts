import { checkSwitches } from '../check.js'

/**
 * What the kernel does and nobody would design. All are on unless switched off; off, the guest does what is said behind "off".
 * Numbers are those of the facts in the protocol's documentation.
 */
export interface Quirks {
  /** 1: a short read is taken for a whole message. Off: messages are put together from however many reads they take. */
  tornRequests: boolean
  /** 2: bytes of earlier replies stand behind a reply's load. Off: zeros. */
  staleReplyBytes: boolean
  /** 3: a PCI success repeats the result of the request before it. Off: it answers 0. */
  stalePciResult: boolean
  /** 4: a wrong magic repeats the result of the request before it, 0 at first. Off: −22, as for everything else that is malformed. */
  wrongMagicSucceeds: boolean
  /** 6: a CPU batch stops at the first CPU that fails, and the CPUs before it stay changed. Off: all of the batch or nothing. */
  partialCpuAdd: boolean
  /** 10, x86_64 on 5.10 and 6.1: an absent vCPU is waited for for 12.2 s. Off: the same −5 at once. */
  slowAbsentCpu: boolean
  /** 16: until the guest has booted, connections are accepted and closed. Off: the service is there from the first moment. */
  resetWhileBooting: boolean
}

/** The quirks of the session, which holds the connection's buffers. The others belong to the guest behind it. */
export type WireQuirks = Pick<Quirks, 'tornRequests' | 'staleReplyBytes' | 'stalePciResult' | 'wrongMagicSucceeds'>

const ALL_ON: Readonly<Quirks> = {
  tornRequests: true,
  staleReplyBytes: true,
  stalePciResult: true,
  wrongMagicSucceeds: true,
  partialCpuAdd: true,
  slowAbsentCpu: true,
  resetWhileBooting: true,
}

export function allQuirks(overrides: { readonly [Q in keyof Quirks]?: boolean | undefined } = {}): Quirks {
  const quirks: Quirks = { ...ALL_ON }
  checkSwitches('quirks', overrides, Object.keys(ALL_ON))
  for (const [name, on] of Object.entries(overrides)) {
    if (on !== undefined) quirks[name as keyof Quirks] = on
  }
  return quirks
}

/**
 * Those of the wire; a simulated guest's own quirks are more, and are taken as they are.
 *
 * @throws RangeError for a quirk that there is not, TypeError for one that is neither on nor off.
 */
export function wireQuirks(
  name: string,
  quirks: { readonly [Q in keyof WireQuirks]?: boolean | undefined } = {},
): Partial<WireQuirks> {
  checkSwitches(name, quirks, Object.keys(ALL_ON))
  return quirks as Partial<WireQuirks>
}
