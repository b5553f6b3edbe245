import { checkNames, checkSwitch } from '@upcall/foundation/check'

/**
 * Oddities of the kernels. All are on by default. Each comment says what the guest does instead when the quirk is off. The numbers are those
 * of the facts in docs/protocol.md.
 */
export interface Quirks {
  /** 1: the guest takes a short read for a whole message. Off: it gathers a message from any number of reads. */
  tornRequests: boolean
  /** 2: bytes of earlier replies follow a reply's load. Off: zeros follow it. */
  staleReplyBytes: boolean
  /** 3: a PCI success repeats the result of the request before it. Off: it answers 0. */
  stalePciResult: boolean
  /** 4: a wrong magic repeats the result of the request before it, 0 at first. Off: −22, as for everything else that is malformed. */
  wrongMagicSucceeds: boolean
  /** 6: a CPU batch stops at the first CPU that fails, and the CPUs before it stay changed. Off: all of the batch or nothing. */
  partialCpuAdd: boolean
  /** 10, x86_64 on 5.10 and 6.1: the guest waits 12.2 s for an absent vCPU, then answers −5. Off: it answers −5 at once. */
  slowAbsentCpu: boolean
  /** 16: until the guest has booted, it accepts connections and closes them. Off: the service is there from the start. */
  resetWhileBooting: boolean
}

/** The quirks of the session, which holds the connection's buffers. The other quirks belong to the guest. */
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
  checkQuirks('quirks', overrides)
  for (const [name, on] of Object.entries(overrides)) {
    if (on !== undefined) quirks[name as keyof Quirks] = on
  }
  return quirks
}

/**
 * The quirks of the wire, of an object that may have all of them.
 *
 * @throws RangeError for an unknown quirk; TypeError for a value that is not a boolean.
 */
export function wireQuirks(
  name: string,
  quirks: { readonly [Q in keyof WireQuirks]?: boolean | undefined } = {},
): Partial<WireQuirks> {
  checkQuirks(name, quirks)
  return quirks as Partial<WireQuirks>
}

/** A quirk that does not exist would switch nothing. */
function checkQuirks(name: string, quirks: object): void {
  checkNames(name, quirks, Object.keys(ALL_ON))
  for (const [key, on] of Object.entries(quirks)) checkSwitch(`${name}.${key}`, on)
}
